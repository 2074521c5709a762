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

#include "compress/calibration/calibration_states.h"
#include "compress/calibration/dense_block.h"
#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"
#include "compress/kernels/cpu.h"
#include "compress/pipeline/run/kept_inputs.h"
#include "compress/pipeline/run/kv_scales.h"
#include "compress/pipeline/run/linear_compressor.h"
#include "compress/pipeline/run/linear_store.h"

namespace llmpress {

struct CompressedBlock {
  BlockWeights weights{};
  std::map<std::string, DType> norm_dtypes{};  // in which norms are written
  std::vector<LayerReport> layers{};           // one for each Linear
  KvScales kv_scales{};
};

struct BlockJob {
  const Architecture* arch = nullptr;
  const StagePlan* plan = nullptr;
  const Checkpoint* source = nullptr;  // of the Linears of an unread block
  std::size_t layer = 0;
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  const ImportanceFiles* importance = nullptr;  // that stages name
  // Who compresses the block together, each with its calibration batches.
  Ranks ranks{};
  ExpertPolicy experts = ExpertPolicy::kNearest;
  std::size_t expert_min_tokens = 0;
  KeptInputs kept{};
  // Where Linears go that are finished before their block is; null: nowhere.
  const LinearStore* linears = nullptr;
  // Of this block, for the stages whose sparsity was allocated.
  std::map<const PruneStage*, double> sparsities{};
  std::function<void(const LayerReport&)> on_layer{};  // may be empty
  std::function<void(const std::string&)> on_note{};   // may be empty
};

// The calibration tokens in the compressed model and, where a method compares
// the two (GPTAQ), in the model before rounding.
struct CalibrationStreams {
  CalibrationStates* compressed = nullptr;  // null: nothing needs calibration
  CalibrationStates* reference = nullptr;
};

// `streams` hold the block's inputs and come back with its outputs. Of an
// unread block the Linears are read one by one, in float32 only while they are
// compressed, unless smoothing moves scales among them.
CompressedBlock compress_block(const BlockJob& job, DenseBlock block,
                               CalibrationStreams streams);

// Takes `streams` past a block that an earlier run compressed, to the same
// bytes as compress_block() would.
void pass_block(const BlockJob& job, const BlockWeights& compressed,
                DenseBlock block, CalibrationStreams streams);

}  // namespace llmpress
