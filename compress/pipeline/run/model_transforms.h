// The stages of a variant that act on the whole model, as checkpoints laid over
// one another.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "compress/calibration/calibration_text.h"
#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/reports/run_report.h"
#include "compress/pipeline/reports/training_report.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// What stages that change the model's shape need beside the model.
struct TransformContext {
  const CalibrationSet* calibration = nullptr;  // null: none in the recipe
  std::filesystem::path directory{};  // for their results; kept while in use
  std::filesystem::path scratch{};  // for calibration states; empty: in memory
  Isa isa = best_isa();
  Progress progress{};
  std::function<void(const std::string&)> log{};
};

class TransformedModel {
 public:
  // `base` must outlive this. Results that an earlier run left whole in the
  // context's directory are taken from there.
  TransformedModel(const Checkpoint& base, const StagePlan& plan,
                   ThreadPool& pool, const TransformContext& context = {});

  const Checkpoint& checkpoint() const { return *top_; }
  const Architecture& architecture() const { return *arch_; }
  const std::vector<std::string>& notes() const { return notes_; }
  // What structured pruning removed and healed.
  const std::vector<LayerReport>& structured() const { return structured_; }
  // What training stages did, in order.
  const std::vector<TrainingReport>& training() const { return training_; }

 private:
  std::unique_ptr<Checkpoint> reduce(const PruneStage& stage, ThreadPool& pool,
                                     const TransformContext& context);
  std::unique_ptr<Checkpoint> trained(const Stage& stage, const StagePlan& plan,
                                      ThreadPool& pool,
                                      const TransformContext& context);

  const Checkpoint* base_;
  const Checkpoint* top_;
  std::vector<std::unique_ptr<Checkpoint>> layers_;
  // Edits refer to the architecture that they were made for.
  std::vector<std::unique_ptr<Architecture>> archs_;
  const Architecture* arch_;
  std::vector<std::string> notes_;
  std::vector<LayerReport> structured_;
  std::vector<TrainingReport> training_;
};

}  // namespace llmpress
