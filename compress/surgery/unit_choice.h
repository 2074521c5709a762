// What the choice of the blocks or channels that a whole model can do without is
// made from.
#pragma once

#include "compress/calibration/calibration_text.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"
#include "pruning/prune_config.h"

namespace llmpress {

class TrainingStore;  // distill/trainer.h

struct UnitChoiceJob {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;
  const PruneConfig* config = nullptr;
  const CalibrationSet* calibration = nullptr;  // null: none in the recipe
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  // What learning goes on from, and leaves there; null: it starts anew.
  TrainingStore* store = nullptr;
  Progress progress{};
};

}  // namespace llmpress
