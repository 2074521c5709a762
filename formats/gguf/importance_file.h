// An importance matrix (imatrix.h) asked by the names of a model's folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/imatrix.h"

namespace llmpress {

// Where a Linear's inputs stand in an importance matrix.
struct ImatrixPlace {
  std::string name{};     // "blk.0.ffn_up_exps.weight"
  std::size_t index = 0;  // of its matrices
  bool stacked = false;
};

// Names of GGUF for the Linears of one model; of a family that GGUF has no
// names for, or of a Linear that it has not, the Linear's own.
class ImatrixNames {
 public:
  // `config_json` may be of any model.
  ImatrixNames(const std::string& config_json, const std::string& origin);
  ImatrixPlace place_of(std::string_view module) const;

 private:
  const GgufArchitecture* architecture_ = nullptr;
};

class ImportanceFile {
 public:
  // Throws as read_imatrix() does.
  ImportanceFile(const std::filesystem::path& path, ImatrixNames names);

  // E[x^2] [in] of the inputs of a Linear. Throws Error(kInvalidInput) naming
  // it if the file does not have it.
  std::vector<float> of(std::string_view module, std::size_t in) const;

 private:
  std::string path_;
  Imatrix imatrix_;
  ImatrixNames names_;
};

}  // namespace llmpress
