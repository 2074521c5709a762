// Writes a checkpoint, as it is read, to a new model folder of dense tensors.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "compress/core/dtype.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// How a copy that was cut off goes on from the tensors that it has written: in
// the folder OUTPUT.resume (resume_store.h), which the caller has locked.
struct CopyResume {
  // Lines of "name: value" of all that the tensors are made from.
  std::string fingerprint{};
  bool take_up = true;  // what is there; else it starts again
  std::function<void(const std::string& line)> log{};
};

struct ModelCopyOptions {
  std::filesystem::path output{};
  std::optional<DType> dtype{};  // of all floating tensors; absent: as they are
  std::map<std::string, std::string> files{};  // by name, beside the model
  Progress progress{};
  ThreadPool* pool = nullptr;  // null: this thread
  std::optional<CopyResume> resume{};
};

// Tensors are read, and changed, as they are written, in bounded memory: large
// ones one after another, others as many at a time as there are threads. Whole or
// not at all. Throws Error(kUnsupported) if a Linear is stored packed and was not
// changed.
void copy_model(const Checkpoint& checkpoint, const ModelCopyOptions& options);

}  // namespace llmpress
