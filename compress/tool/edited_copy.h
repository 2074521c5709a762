// A dense model whose tensors are changed as they are written: what merge and
// unmerge share.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "compress/core/dtype.h"
#include "compress/tool/session.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct EditedCopyOptions {
  std::filesystem::path output{};
  std::optional<DType> dtype{};  // absent: the model's
  bool no_resume = false;
};

// `fingerprint` as merge_fingerprint() gives it.
void write_edited_copy(const Checkpoint& edited,
                       const EditedCopyOptions& options,
                       const std::string& fingerprint, Session& session);

}  // namespace llmpress
