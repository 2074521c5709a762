// Writes a checkpoint, as it is read, to a new model folder of dense tensors.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "compress/core/dtype.h"
#include "compress/core/progress.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct ModelCopyOptions {
  std::filesystem::path output{};
  std::optional<DType> dtype{};  // of all floating tensors; absent: as they are
  std::map<std::string, std::string> files{};  // by name, beside the model
  Progress progress{};
};

// Tensor by tensor, in bounded memory; whole or not at all. Throws
// Error(kUnsupported) if a Linear is stored packed and was not changed.
void copy_model(const Checkpoint& checkpoint, const ModelCopyOptions& options);

}  // namespace llmpress
