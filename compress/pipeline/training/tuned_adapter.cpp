#include "compress/pipeline/training/tuned_adapter.h"

#include <optional>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/model/prefix_places.h"
#include "compress/pipeline/training/learned_adapter.h"
#include "compress/pipeline/training/learned_tokens.h"

namespace llmpress {
namespace {

// With the place of the stage in front.
template <class Check>
void at_stage(const TuneStage& stage, const Check& check) {
  try {
    check();
  } catch (const Error& error) {
    fail(error.code(), "{}: tune: {}", stage.position.to_string(),
         error.what());
  }
}

std::size_t factor_numbers(const TuneStage& stage, const Architecture& arch) {
  const auto chosen = adapters_of(stage, arch);
  std::size_t numbers = 0;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      const LinearSpec& spec = arch.block(layer).linears[l];
      const auto found = chosen.find(arch.linear_name(layer, l));
      if (found == chosen.end()) continue;
      numbers += found->second.rank * (spec.out + spec.in) +
                 (found->second.dora ? spec.out : 0);
    }
  }
  return numbers;
}

AdapterChoice choice_of(const TuneStage& stage, const Architecture& arch) {
  return [chosen = adapters_of(stage, arch)](
             const std::string& linear) -> std::optional<LoraConfig> {
    const auto found = chosen.find(linear);
    if (found == chosen.end()) return std::nullopt;
    return found->second;
  };
}

}  // namespace

void check_adapter(const TuneStage& stage, const Architecture& arch) {
  switch (stage.adapter.method) {
    case AdapterKind::kLora:
    case AdapterKind::kRsLora:
    case AdapterKind::kDora:
      (void)adapters_of(stage, arch);
      return;
    case AdapterKind::kPrefix:
      return at_stage(stage, [&] { (void)uniform_prefix_shape(arch); });
    case AdapterKind::kPrompt:
      return at_stage(stage, [&] { check_prompt_possible(arch); });
  }
}

std::size_t adapter_numbers(const TuneStage& stage, const Architecture& arch) {
  const std::size_t tokens = stage.adapter.virtual_tokens;
  switch (stage.adapter.method) {
    case AdapterKind::kLora:
    case AdapterKind::kRsLora:
    case AdapterKind::kDora:
      return factor_numbers(stage, arch);
    case AdapterKind::kPrefix:
      return tokens * 2 * arch.layers * uniform_prefix_shape(arch).width();
    case AdapterKind::kPrompt:
      return tokens * arch.hidden;
  }
  return 0;
}

bool can_be_merged(AdapterKind kind) {
  return kind != AdapterKind::kPrefix && kind != AdapterKind::kPrompt;
}

void add_adapter(const AdapterStart& start, ModelLearning& learning) {
  const TuneStage& stage = *start.stage;
  const TokensStart tokens{.config = &stage.adapter,
                           .base = start.base,
                           .arch = start.arch,
                           .text = start.text,
                           .isa = start.isa,
                           .pool = start.pool};
  switch (stage.adapter.method) {
    case AdapterKind::kLora:
    case AdapterKind::kRsLora:
    case AdapterKind::kDora:
      learning.adapts = choice_of(stage, *start.arch);
      return;
    case AdapterKind::kPrefix:
      at_stage(stage, [&] {
        learning.prefix = [prefix = first_prefix(tokens)](std::size_t layer) {
          return prefix.at(layer);
        };
      });
      return;
    case AdapterKind::kPrompt:
      return at_stage(stage, [&] { learning.prompt = first_prompt(tokens); });
  }
}

void write_learned_adapter(const LearnedAdapter& adapter,
                           const std::filesystem::path& output) {
  const TuneConfig& config = adapter.stage->adapter;
  switch (config.method) {
    case AdapterKind::kLora:
    case AdapterKind::kRsLora:
    case AdapterKind::kDora:
      return write_peft_adapter(
          output, learned_adapter(adapter.parameters, config.scaling()),
          {.base_model = adapter.base_model,
           .rank_stabilized = config.method == AdapterKind::kRsLora,
           .files = adapter.files});
    case AdapterKind::kPrefix:
      return write_virtual_tokens(
          output, learned_prefix(adapter.parameters, *adapter.arch),
          adapter.base_model, adapter.files);
    case AdapterKind::kPrompt:
      return write_virtual_tokens(
          output, learned_prompt(adapter.parameters, *adapter.arch),
          adapter.base_model, adapter.files);
  }
}

}  // namespace llmpress
