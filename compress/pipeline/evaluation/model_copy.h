// Writes a checkpoint, as it is read, to a new model folder of dense tensors.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "compress/core/dtype.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/pipeline/run/output_resume.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct ModelCopyOptions {
  std::filesystem::path output{};
  std::optional<DType> dtype{};  // of all floating tensors; absent: as they are
  std::map<std::string, std::string> files{};  // by name, beside the model
  Progress progress{};
  ThreadPool* pool = nullptr;            // null: this thread
  std::optional<OutputResume> resume{};  // from the tensors that are written
};

// Tensors are read, and changed, as they are written, in bounded memory: large
// ones one after another, others as many at a time as there are threads. Whole or
// not at all. Throws Error(kUnsupported) if a Linear is stored packed and was not
// changed.
void copy_model(const Checkpoint& checkpoint, const ModelCopyOptions& options);

}  // namespace llmpress
