// A `train`, `distill` or `tune` stage, from checkpoint to checkpoint: the
// student is made, trained, and written as an ordinary checkpoint, which the
// stages after it read like any other. An adapter is merged into it, or written
// by itself.
//
//   <output>            the trained model, whole or not at all, with the
//                       stage's report (training.json) in it
//   <output>.training/  checkpoints of unfinished training, and the student
//                       that it began with
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/pipeline/reports/training_report.h"
#include "formats/checkpoints/checkpoint.h"
#include "recipes/recipe.h"

namespace llmpress {

struct TrainingStageJob {
  const Checkpoint* checkpoint = nullptr;  // the model as the stage finds it
  const Checkpoint* base = nullptr;        // the recipe's model
  const Stage* stage = nullptr;            // one of them
  // Whose `quantize` stages set the grids of training that is aware of them.
  const StagePlan* plan = nullptr;
  std::filesystem::path output{};  // folder of the result
  // Of a TuneStage: writes its adapter alone, as PEFT stores one, instead of
  // the merged model, with these files beside it; its checkpoints go to `work`.
  struct AdapterAlone {
    std::filesystem::path work{};
    std::map<std::string, std::string> files{};
  };
  std::optional<AdapterAlone> adapter_alone{};
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  Progress progress{};
  std::function<void(const std::string&)> log{};
};

// Goes on from the checkpoints of an earlier, unfinished call. Throws Error as
// train() and TrainableModel.
void train_model(const TrainingStageJob& job);

// The report that an earlier train_model() left in its output.
TrainingReport read_training_report(const std::filesystem::path& output);

}  // namespace llmpress
