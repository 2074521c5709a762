// What `llmpress imatrix` measures: the sums of squares of every Linear's
// inputs while the calibration tokens run through the model as it is, as an
// importance matrix (formats/gguf/imatrix.h).
#pragma once

#include "compress/calibration/calibration_text.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/model_source.h"
#include "formats/gguf/imatrix.h"

namespace llmpress {

struct ImportanceJob {
  const ModelSource* model = nullptr;
  const CalibrationSet* calibration = nullptr;
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  Progress progress{};
};

// Of the Linears of all blocks and of the head. An expert's counts are the
// tokens that were routed to it.
Imatrix measure_importance(const ImportanceJob& job);

}  // namespace llmpress
