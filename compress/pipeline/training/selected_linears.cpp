#include "compress/pipeline/training/selected_linears.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "compress/core/formatted.h"
#include "compress/model/facts.h"
#include "recipes/layer_selection.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse(const TuneStage& stage, ErrorCode code,
                         const std::string& why) {
  fail(code, "{}: tune: {}", stage.position.to_string(), why);
}

void refuse_ends(const TuneStage& stage, const Architecture& arch,
                 const LayerSelector& selector) {
  for (const auto& [name, role] :
       {std::pair(arch.embedding, ModuleRole::kEmbedding),
        std::pair(arch.head, ModuleRole::kHead)}) {
    if (!selector.selects(name, role)) continue;
    refuse(stage, ErrorCode::kUnsupported,
           formatted("'{}': adapters of Linears of the blocks alone learn in "
                     "this version",
                     name));
  }
}

// Whether the Linear adds the MLP's part to the stream.
bool writes_mlp(const BlockSpec& block, std::size_t linear) {
  return std::ranges::any_of(block.operations, [&](const Operation& op) {
    const auto* const own = std::get_if<LinearOp>(&op.kind);
    return own != nullptr && std::ranges::count(own->linears, linear) != 0 &&
           block.values[op.in[0]].axis == Axis::kFfn;
  });
}

}  // namespace

std::vector<SelectedLinear> selected_linears(const TuneStage& stage,
                                             const Architecture& arch) {
  const LayerSelector selector(stage.layers, stage.position.to_string());
  refuse_ends(stage, arch, selector);
  std::vector<SelectedLinear> chosen;
  std::size_t seen = 0;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const auto& linears = arch.block(layer).linears;
    for (std::size_t l = 0; l < linears.size(); ++l) {
      const std::string name = arch.linear_name(layer, l);
      const std::size_t number = seen++;
      const ModuleRole role = linears[l].role == LinearRole::kRouter
                                  ? ModuleRole::kRouter
                                  : ModuleRole::kBlockLinear;
      if (!selector.selects(name, role)) continue;
      if (linears[l].storage && linears[l].storage->index) {
        refuse(stage, ErrorCode::kUnsupported,
               formatted("'{}' lies in a stack of experts, which an adapter of "
                         "Linears does not name: take it out by 'ignore'",
                         name));
      }
      chosen.push_back({name, layer, l, number});
    }
  }
  if (!chosen.empty()) return chosen;
  refuse(stage, ErrorCode::kInvalidArgument,
         "'targets' and 'ignore' leave no Linear of the blocks");
}

std::vector<SelectedLinear> bottleneck_places(const TuneStage& stage,
                                              const Architecture& arch) {
  std::vector<SelectedLinear> chosen = selected_linears(stage, arch);
  std::erase_if(chosen, [&](const SelectedLinear& linear) {
    const BlockSpec& block = arch.block(linear.layer);
    const StreamFacts facts = stream_facts(block);
    if (std::ranges::count(facts.writers, linear.linear) == 0) return true;
    return stage.adapter.placement == BottleneckPlace::kPfeiffer &&
           !writes_mlp(block, linear.linear);
  });
  if (!chosen.empty()) return chosen;
  refuse(stage, ErrorCode::kInvalidArgument,
         "'targets', 'ignore' and 'placement' leave no Linear that adds to the "
         "stream");
}

const LinearSpec& spec_of(const SelectedLinear& linear,
                          const Architecture& arch) {
  return arch.block(linear.layer).linears[linear.linear];
}

}  // namespace llmpress
