// A dense model whose tensors are changed as they are written: what merge and
// unmerge share.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "compress/core/dtype.h"
#include "compress/tool/session.h"
#include "formats/checkpoints/checkpoint.h"

namespace CLI {
class App;
}

namespace llmpress {

struct EditedCopyOptions {
  std::filesystem::path output{};
  std::optional<DType> dtype{};  // absent: the model's
  bool no_resume = false;
};

void add_no_resume_option(CLI::App& command, bool& no_resume);

// The folder of what is not finished.
OutputPath unfinished_output(const std::filesystem::path& output);

// `fingerprint` as merge_fingerprint() gives it.
void write_edited_copy(const Checkpoint& edited,
                       const EditedCopyOptions& options,
                       const std::string& fingerprint, Session& session);

}  // namespace llmpress
