// The importance matrices that a variant's `quantize` stages name
// (formats/gguf/importance_file.h), read once, in place of calibration.
#pragma once

#include <filesystem>
#include <map>
#include <string_view>

#include "compress/calibration/stage_plan.h"
#include "compress/core/input_stats.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/gguf/importance_file.h"

namespace llmpress {

class ImportanceFiles {
 public:
  ImportanceFiles() = default;
  // Throws as ImportanceFile does.
  ImportanceFiles(const StagePlan& plan, const Checkpoint& checkpoint);

  // What a Linear's stage knows of its input: `square_mean` alone. Throws
  // Error(kInvalidInput) naming the Linear if the file does not have it.
  InputStats stats_of(const QuantizeStage& stage, std::string_view linear,
                      std::size_t in) const;

 private:
  std::map<std::filesystem::path, ImportanceFile> files_{};
};

// Throws Error for a Linear of a block or a head whose stage names a file that
// does not have it.
void check_importance(const StagePlan& plan, const Checkpoint& checkpoint,
                      const Architecture& arch);

}  // namespace llmpress
