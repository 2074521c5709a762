// A `prune` stage that changes the model's shape, from checkpoint to
// checkpoint: FFN channels, key/value heads with their query heads, channels of
// the residual stream, whole blocks or experts of mixtures go, or key/value
// heads are merged. The result is an ordinary dense checkpoint with config.json
// rewritten, which the stages after it read like any other.
//
// Block by block: importance is measured on what the reduced blocks before it
// give, the least important units go (the same number everywhere), and what
// stays is healed (structured_healing.h; not where experts went). Memory: one block, and the
// calibration activations of the dense and of the reduced model.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "compress/calibration/calibration_text.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/reports/run_report.h"
#include "formats/checkpoints/checkpoint.h"
#include "recipes/recipe.h"

namespace llmpress {

struct StructuredJob {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;
  const PruneStage* stage = nullptr;
  const CalibrationSet* calibration = nullptr;  // null: none in the recipe
  std::filesystem::path scratch{};  // for calibration states; empty: in memory
  // kDepth: the blocks that stay, instead of the least important's rest.
  std::vector<std::size_t> kept_layers{};
  std::filesystem::path output{};  // folder of the result
  // Where what is done so far is kept (structured_progress.h); empty: nowhere.
  std::filesystem::path progress_directory{};
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  Progress progress{};
};

// Writes the reduced checkpoint, whole or not at all, and in it the report: for
// every removed block, every Linear that was healed or measured, and the router
// of every mixture that lost experts, a row.
// Throws Error as check_structured(), and kNumeric if healing fails.
void prune_structure(const StructuredJob& job);

// The report that an earlier prune_structure() left in its output.
std::vector<LayerReport> read_structured_report(
    const std::filesystem::path& output);

}  // namespace llmpress
