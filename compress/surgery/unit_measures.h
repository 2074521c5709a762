// How much the units of one block matter, measured on what the reduced blocks
// in front of it give (pruning/importance.h).
#pragma once

#include <cstddef>
#include <vector>

#include "compress/calibration/calibration_states.h"
#include "compress/calibration/dense_block.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "pruning/prune_config.h"

namespace llmpress {

struct UnitMeasureJob {
  const Architecture* arch = nullptr;
  std::size_t layer = 0;
  const DenseBlock* dense = nullptr;                 // the block as it was
  Importance importance = Importance::kActivations;  // or kWeights
  const CalibrationStates* states = nullptr;         // of kActivations
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
};

// [channels] of the MLP and [key/value heads].
std::vector<double> ffn_importance(const UnitMeasureJob& job);
std::vector<double> head_importance(const UnitMeasureJob& job);

// E[x x^T] of what the queries read, [hidden, hidden]; needs states.
MatrixF query_input_moment(const UnitMeasureJob& job);

}  // namespace llmpress
