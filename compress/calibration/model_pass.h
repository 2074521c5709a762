// What a pass over the whole uncompressed model needs, before the first block
// is compressed: automatic mixed precision, OWL.
#pragma once

#include <filesystem>

#include "compress/calibration/calibration_text.h"
#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct ModelPass {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;
  const StagePlan* plan = nullptr;
  const CalibrationSet* calibration = nullptr;
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  Ranks ranks{};  // who passes its batches through the model together
  std::filesystem::path scratch{};  // for calibration states; empty: in memory
  Progress progress{};
};

}  // namespace llmpress
