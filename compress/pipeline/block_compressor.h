// One block of a variant: transformed, smoothed, then compressed stage by stage
// in the order in which its Linears run, each calibrated on what the compressed
// Linears before it produce.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/pipeline/calibration_states.h"
#include "compress/pipeline/dense_block.h"
#include "compress/pipeline/linear_compressor.h"
#include "compress/pipeline/stage_plan.h"

namespace llmpress {

struct CompressedBlock {
  BlockWeights weights{};
  std::map<std::string, DType> norm_dtypes{};  // in which norms are written
  std::vector<LayerReport> layers{};           // one for each Linear
};

struct BlockJob {
  const Architecture* arch = nullptr;
  const StagePlan* plan = nullptr;
  std::size_t layer = 0;
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  std::optional<double> sparsity{};  // of this block, if it was allocated
  std::function<void(const LayerReport&)> on_layer{};  // may be empty
  std::function<void(const std::string&)> on_note{};   // may be empty
};

// `states` holds the block's inputs and comes back with its outputs; null when
// no stage needs calibration.
CompressedBlock compress_block(const BlockJob& job, DenseBlock block,
                               CalibrationStates* states);

}  // namespace llmpress
