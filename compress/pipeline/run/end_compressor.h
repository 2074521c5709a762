// Embedding and head of a model through the stages that name them. They are
// selected by name only (layer_selection.h); without that they go through byte
// for byte.
//
// The head is calibrated like any Linear, on the final norm's output. An
// embedding has no input but token ids: methods that calibrate round it to
// nearest, which the layer's notes say. A head that is tied to the embedding
// stays so if the same stages select both; else it gets a weight of its own
// when it is compressed.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/pipeline/run/block_compressor.h"

namespace llmpress {

struct EndsJob {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;
  const StagePlan* plan = nullptr;
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  Ranks ranks{};  // the first compresses, all have calibration batches
  const ImportanceFiles* importance = nullptr;
  std::function<void(const LayerReport&)> on_layer{};  // may be empty
};

struct CompressedEnds {
  std::map<std::string, LinearWeights> linears{};  // by module name
  std::vector<LayerReport> layers{};
  bool unties_head = false;  // config.json must say so
};

// What the stages do to the embedding and to the head. Throws
// Error(kUnsupported) with the stage's place for what cannot be done to them.
LinearTreatment embedding_treatment(const StagePlan& plan,
                                    const Architecture& arch);
LinearTreatment head_treatment(const StagePlan& plan, const Architecture& arch);

// What calibration must collect for the head.
StatsNeeds needs_of_ends(const StagePlan& plan, const Architecture& arch);

// `streams` hold the outputs of the last block.
CompressedEnds compress_ends(const EndsJob& job, CalibrationStreams streams);

}  // namespace llmpress
