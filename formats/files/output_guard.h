// What every command that writes asks before it works: that no output is,
// holds, lies in or is linked to an input or another output, that nothing
// foreign is in the way (replaceable.h), and that nobody else writes there
// (output_lock.h).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/files/output_lock.h"
#include "formats/files/replaceable.h"

namespace llmpress {

// Inputs that are not there are left to who reads them; empty paths are left
// out.
struct InputPath {
  std::string what{};  // "the model"
  std::filesystem::path path{};
};

struct OutputPath {
  std::string what{};  // "the output"
  std::filesystem::path path{};
  OutputKind kind = OutputKind::kFolder;
};

// Looks only. Throws Error(kInvalidArgument) naming both, or what is in the
// way.
void check_outputs(const std::vector<InputPath>& inputs,
                   const std::vector<OutputPath>& outputs);

// Keeps the outputs for this process for as long as it lives.
class OutputGuard {
 public:
  // As check_outputs(), then makes the folders that the outputs will stand in,
  // locks, and removes what killed runs of this user left beside them.
  OutputGuard(const std::vector<InputPath>& inputs,
              const std::vector<OutputPath>& outputs);
  OutputGuard(const OutputGuard&) = delete;
  OutputGuard& operator=(const OutputGuard&) = delete;

  // Leftovers that are not this user's, or perhaps in use: left alone.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  // Those that are empty in the end go again.
  struct MadeFolders {
    MadeFolders() = default;
    ~MadeFolders();
    MadeFolders(const MadeFolders&) = delete;
    MadeFolders& operator=(const MadeFolders&) = delete;
    void make(const std::filesystem::path& folder);
    std::vector<std::filesystem::path> paths{};
  };

  void reserve(const OutputPath& output);

  MadeFolders made_{};  // before the locks, which stand in them
  std::vector<OutputLock> locks_{};
  std::vector<std::string> notes_{};
};

}  // namespace llmpress
