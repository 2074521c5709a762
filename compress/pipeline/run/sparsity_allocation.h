// OWL in a run (pruning/owl.h): before the first block is pruned, the whole
// uncompressed model runs over the calibration set, the outlier ratio of every
// block is measured, and `allocation: owl` stages get a sparsity for each
// block. Cost: one pass of the calibration set, and two over the weights; one
// block and the activations in memory.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "compress/calibration/model_pass.h"

namespace llmpress {

;

// [layers] for each stage that asked for an allocation. Blocks in which a stage
// selects no Linear keep the stage's own sparsity and are left out of the mean.
struct SparsityAllocations {
  std::map<const PruneStage*, std::vector<double>> of_stage{};
  std::vector<std::string> notes{};  // a line a block

  // Of one block, as BlockJob wants it.
  std::map<const PruneStage*, double> of_block(std::size_t layer) const;
};

bool wants_sparsity_allocation(const StagePlan& plan);

SparsityAllocations allocate_sparsities(const ModelPass& job);

}  // namespace llmpress
