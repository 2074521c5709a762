#include "compress/pipeline/training/tuned_adapter.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "compress/model/prefix_places.h"
#include "compress/model/training/bottleneck_linear.h"
#include "compress/pipeline/training/difference_objective.h"
#include "compress/pipeline/training/learned_adapter.h"
#include "compress/pipeline/training/learned_tokens.h"
#include "compress/pipeline/training/selected_linears.h"
#include "formats/adapters/bottleneck_adapter.h"
#include "formats/adapters/difference_adapter.h"

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

std::size_t bottleneck_numbers(const TuneStage& stage,
                               const Architecture& arch) {
  const std::size_t size = stage.adapter.bottleneck_size;
  std::size_t numbers = 0;
  for (const SelectedLinear& linear : bottleneck_places(stage, arch)) {
    numbers += spec_of(linear, arch).out * (2 * size + 1) + size;
  }
  return numbers;
}

// By layer and Linear.
using Places = std::map<std::pair<std::size_t, std::size_t>, std::size_t>;

Places places_of(const std::vector<SelectedLinear>& linears) {
  Places places;
  for (const SelectedLinear& linear : linears) {
    places[{linear.layer, linear.linear}] = linear.number;
  }
  return places;
}

void add_bottlenecks(const AdapterStart& start, ModelLearning& learning) {
  const TuneConfig& config = start.stage->adapter;
  Rng mixed(config.seed);
  learning.wraps =
      [isa = start.isa, seed = mixed.next(), size = config.bottleneck_size,
       activation = config.activation,
       places = places_of(bottleneck_places(*start.stage, *start.arch))](
          std::size_t layer, std::size_t linear,
          std::unique_ptr<TrainableLinear> inner)
      -> std::unique_ptr<TrainableLinear> {
    const auto found = places.find({layer, linear});
    if (found == places.end()) return inner;
    return std::make_unique<BottleneckLinear>(
        std::move(inner),
        BottleneckConfig{.size = size,
                         .activation = activation,
                         .seed = seed + found->second},
        isa);
  };
}

void add_differences(const AdapterStart& start, ModelLearning& learning) {
  learning.wraps = [rate = static_cast<float>(start.stage->adapter.gate_rate),
                    made = start.differences,
                    places =
                        places_of(selected_linears(*start.stage, *start.arch))](
                       std::size_t layer, std::size_t linear,
                       std::unique_ptr<TrainableLinear> inner)
      -> std::unique_ptr<TrainableLinear> {
    if (!places.contains({layer, linear})) return inner;
    auto difference = std::make_unique<DifferenceLinear>(std::move(inner),
                                                         kFirstLogAlpha, rate);
    made->push_back(difference.get());
    return difference;
  };
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
    case AdapterKind::kBottleneck:
      (void)bottleneck_places(stage, arch);
      return;
    case AdapterKind::kDiffPruning:
      (void)selected_linears(stage, arch);
      return;
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
    case AdapterKind::kBottleneck:
      return bottleneck_numbers(stage, arch);
    case AdapterKind::kDiffPruning:
      return 2 * kept_numbers(stage, arch);  // places and values
  }
  return 0;
}

bool can_be_merged(AdapterKind kind) {
  return kind != AdapterKind::kPrefix && kind != AdapterKind::kPrompt &&
         kind != AdapterKind::kBottleneck;
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
    case AdapterKind::kBottleneck:
      learning.learns = [](const std::string&) { return false; };
      return add_bottlenecks(start, learning);
    case AdapterKind::kDiffPruning:
      learning.learns = [](const std::string&) { return false; };
      return add_differences(start, learning);
  }
}

std::size_t kept_numbers(const TuneStage& stage, const Architecture& arch) {
  double numbers = 0;
  for (const SelectedLinear& linear : selected_linears(stage, arch)) {
    const LinearSpec& spec = spec_of(linear, arch);
    numbers += static_cast<double>(spec.out) * static_cast<double>(spec.in);
  }
  return std::max<std::size_t>(
      1, static_cast<std::size_t>(stage.adapter.keep * numbers));
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
    case AdapterKind::kBottleneck:
      return write_bottleneck_adapter(
          output, learned_bottlenecks(adapter.parameters, config.activation),
          adapter.base_model, adapter.files);
    case AdapterKind::kDiffPruning:
      return write_difference_adapter(
          output,
          learned_differences(adapter.parameters,
                              kept_numbers(*adapter.stage, *adapter.arch)),
          adapter.base_model, adapter.files);
  }
}

}  // namespace llmpress
