// Healing of a reduced block: the dense model and the reduced one run side by
// side over the calibration set, and the Linears of the reduced block that
// write to the residual stream (o_proj, down_proj) are refitted, one after the
// other, so that the stream comes as near to the dense model's as their inputs
// allow (pruning/healing.h). Because the target is the stream itself, a block
// also makes up for what the blocks before it could not.
//
// Where the stream has lost channels, the Linears that read it are refitted
// too, to what they gave in the dense model.
//
// Cost: each half of the block twice on the reduced side, once on the dense
// one; a second moment [in, in] and a cross moment [out, in] of one Linear.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "compress/calibration/calibration_states.h"
#include "compress/calibration/dense_block.h"
#include "compress/pipeline/reports/run_report.h"
#include "pruning/prune_config.h"

namespace llmpress {

// The same tokens in both models; `reduced` may be narrower.
struct PairedStates {
  CalibrationStates dense;
  CalibrationStates reduced;
};

struct HealingJob {
  const Architecture* dense_arch = nullptr;
  const Architecture* reduced_arch = nullptr;
  std::size_t dense_layer = 0, reduced_layer = 0;
  const PruneConfig* config = nullptr;
  // Channels of the dense stream that the reduced one has; empty: all.
  std::span<const std::size_t> channels{};
  // Runs the dense blocks that have no counterpart behind this one.
  std::function<void(CalibrationStates& dense)> skip{};
  std::string unit{};  // "384 of 768 FFN channels", for the report
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
};

// `states` hold the inputs of the block and come back with its outputs.
// `reduced` is refitted if config->heal, and measured in any case: a report for
// each Linear that writes to the stream, with errors relative to what the half
// of the dense block adds.
std::vector<LayerReport> heal_block(const HealingJob& job,
                                    const DenseBlock& dense,
                                    DenseBlock& reduced, PairedStates& states);

// A head whose stream lost channels.
struct HeadHealingJob {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;  // of the dense model
  const PruneConfig* config = nullptr;
  std::span<const std::size_t> channels{};  // that stay
  double final_gain = 1;  // what the final norm's gains are multiplied by
  ThreadPool* pool = nullptr;
};

// The head reads the stream behind the final norm: refitted as the Linears of
// the blocks are, from E[x z^T] so that no logits are needed. Not for a tied
// head, which stays what the embedding is. Throws Error(kNumeric) as
// heal_block().
MatrixF heal_head(const HeadHealingJob& job, const PairedStates& states);

}  // namespace llmpress
