// Which stages of a recipe touch which Linear.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/input_stats.h"
#include "compress/model/architecture.h"
#include "recipes/recipe.h"

namespace llmpress {

// What happens to one Linear once its block runs; null: nothing.
struct LinearTreatment {
  const PruneStage* prune = nullptr;
  const QuantizeStage* quantize = nullptr;
  // The recipe's stage that `quantize` is, or was made of (assign()).
  const QuantizeStage* written = nullptr;
  // The weight learned on its grid, on which it is stored as it is.
  bool learned = false;

  bool changes() const { return prune != nullptr || quantize != nullptr; }
};

// The stages of one variant in order, sorted by when they act. Points into the
// recipe, which must outlive it.
class StagePlan {
 public:
  // `shared` then `own`. Throws Error(kInvalidArgument) with the stage's place
  // for a combination that cannot be carried out in its order.
  StagePlan(std::span<const Stage> shared, std::span<const Stage> own);

  // By full module name: the stages that select it, of each kind the first.
  LinearTreatment treatment(std::string_view linear_name,
                            ModuleRole role = ModuleRole::kBlockLinear) const;

  // From now on these Linears are quantized as these stages say, or not at all.
  void assign(std::map<std::string, std::optional<QuantizeStage>> stages);

  // Change the weights of the whole model as a block is loaded.
  std::span<const Stage* const> transforms() const { return transforms_; }
  // Move scales between neighbours, block by block.
  std::span<const SmoothStage* const> smoothing() const { return smoothing_; }
  std::span<const PruneStage* const> pruning() const { return pruning_; }
  std::span<const QuantizeStage* const> quantizing() const {
    return quantizing_;
  }
  // Scales for keys and values; null: none.
  const QuantizeKvCacheStage* kv_cache() const { return kv_cache_; }
  // Train what the stages above made: `train` and `distill` behind them.
  std::span<const Stage* const> recovery() const { return recovery_; }
  // The stage whose training sees the grids of quantizing(); null: none.
  const Stage* aware() const { return aware_; }
  // All stages that train, before and behind.
  std::vector<const Stage*> training() const;
  bool empty() const;

 private:
  std::vector<const Stage*> transforms_, recovery_;
  std::vector<const SmoothStage*> smoothing_;
  std::vector<const PruneStage*> pruning_;
  std::vector<const QuantizeStage*> quantizing_;
  const QuantizeKvCacheStage* kv_cache_ = nullptr;
  const Stage* aware_ = nullptr;
  std::vector<LayerSelector> pruned_, quantized_;  // of each such stage
  // Shared, so that copies of the plan point to the same stages.
  std::shared_ptr<const std::map<std::string, std::optional<QuantizeStage>>>
      assigned_;
};

// Of a Linear of a block; a router is touched only where it is named.
LinearTreatment treatment_of(const StagePlan& plan, const Architecture& arch,
                             std::size_t layer, std::size_t linear);

}  // namespace llmpress
