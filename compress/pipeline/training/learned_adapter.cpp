#include "compress/pipeline/training/learned_adapter.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "recipes/layer_selection.h"

namespace llmpress {
namespace {

MatrixF matrix_of(const Parameter& parameter) {
  MatrixF values(parameter.shape.at(0), parameter.shape.at(1));
  std::ranges::copy(parameter.value, values.data().begin());
  return values;
}

// "<module>" of "<module>.lora_A.weight", or nothing.
std::string module_before(const std::string& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return "";
  return name.substr(0, name.size() - suffix.size());
}

class Choice {
 public:
  Choice(const TuneStage& stage, const Architecture& arch)
      : stage_(stage),
        arch_(arch),
        selector_(stage.layers, stage.position.to_string()) {}

  std::map<std::string, LoraConfig> choose() {
    refuse_ends();
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      const auto& linears = arch_.block(layer).linears;
      for (std::size_t l = 0; l < linears.size(); ++l) {
        add(arch_.linear_name(layer, l), linears[l]);
      }
    }
    if (chosen_.empty()) {
      refuse(ErrorCode::kInvalidArgument,
             "'targets' and 'ignore' leave no Linear of the blocks");
    }
    return std::move(chosen_);
  }

 private:
  [[noreturn]] void refuse(ErrorCode code, const std::string& why) const {
    fail(code, "{}: tune: {}", stage_.position.to_string(), why);
  }

  void refuse_ends() const {
    for (const auto& [name, role] :
         {std::pair(arch_.embedding, ModuleRole::kEmbedding),
          std::pair(arch_.head, ModuleRole::kHead)}) {
      if (!selector_.selects(name, role)) continue;
      refuse(ErrorCode::kUnsupported,
             formatted("'{}': adapters of Linears of the blocks alone learn in "
                       "this version",
                       name));
    }
  }

  void add(const std::string& name, const LinearSpec& spec) {
    const std::uint64_t number = seen_++;
    const ModuleRole role = spec.role == LinearRole::kRouter
                                ? ModuleRole::kRouter
                                : ModuleRole::kBlockLinear;
    if (!selector_.selects(name, role)) return;
    if (spec.storage && spec.storage->index) {
      refuse(ErrorCode::kUnsupported,
             formatted("'{}' lies in a stack of experts, which an adapter of "
                       "Linears does not name: take it out by 'ignore'",
                       name));
    }
    const std::size_t most = std::min(spec.out, spec.in);
    if (stage_.adapter.rank > most) {
      refuse(ErrorCode::kInvalidArgument,
             formatted("'rank' {} is above {}, the smaller side of '{}'",
                       stage_.adapter.rank, most, name));
    }
    Rng mixed(stage_.adapter.seed);
    chosen_[name] = {.rank = stage_.adapter.rank,
                     .scaling = stage_.adapter.scaling(),
                     .dora = stage_.adapter.method == AdapterKind::kDora,
                     .seed = mixed.next() + number};
  }

  const TuneStage& stage_;
  const Architecture& arch_;
  LayerSelector selector_;
  std::uint64_t seen_ = 0;
  std::map<std::string, LoraConfig> chosen_;
};

}  // namespace

std::map<std::string, LoraConfig> adapters_of(const TuneStage& stage,
                                              const Architecture& arch) {
  return Choice(stage, arch).choose();
}

std::map<std::string, PeftModule> learned_adapter(
    std::span<const Parameter> parameters, double scaling) {
  std::map<std::string, PeftModule> modules;
  for (const Parameter& p : parameters) {
    if (const auto a = module_before(p.name, ".lora_A.weight"); !a.empty()) {
      modules[a].A = matrix_of(p);
      modules[a].scaling = scaling;
    } else if (const auto b = module_before(p.name, ".lora_B.weight");
               !b.empty()) {
      modules[b].B = matrix_of(p);
    } else if (const auto m = module_before(p.name, ".lora_magnitude_vector");
               !m.empty()) {
      modules[m].magnitude.assign(p.value.begin(), p.value.end());
    }
  }
  return modules;
}

}  // namespace llmpress
