// What is in a model or artifact.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "compress/model/model_check.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// A Linear of the blocks, or another tensor that stands for itself.
struct InspectedTensor {
  std::string name{};
  std::string type{};  // "int4 g32 asym", "F32"
  std::vector<std::size_t> shape{};
  std::size_t bytes = 0;
  double bits_per_weight = 0;
  double sparsity = 0;
  bool linear = false;
  std::string inputs{};  // how they are rounded: "fp8 g128"; empty: not at all
};

// All tensors of one type.
struct TypeTotal {
  std::string type{};
  std::size_t tensors = 0, weights = 0, bytes = 0;
};

struct TokenizerFacts {
  std::string kind{};          // Tokenizer::kind; empty: there is none
  std::string problem{};       // why it cannot be read; empty: it can
  std::size_t vocabulary = 0;  // largest id + 1
  std::optional<std::size_t> bos{}, eos{};
  bool adds_bos = false;
  std::string sha256{};
};

struct Inspection {
  std::string path{}, format{}, model_type{};
  std::size_t layers = 0, hidden = 0, vocabulary = 0, max_positions = 0;
  std::vector<InspectedTensor> tensors{};
  ModelSize size{};
  // Strings of the files: __metadata__ of safetensors, attributes of HDF5, keys
  // of GGUF.
  std::map<std::string, std::string> metadata{};
  TokenizerFacts tokenizer{};
  std::string chat_template{};  // the file that has it; empty: there is none
};

Inspection inspect(const Checkpoint& checkpoint, const Architecture& arch);
// Types of the Linears first, those with most bytes first.
std::vector<TypeTotal> totals_by_type(const Inspection& inspection);
std::string to_json(const Inspection& inspection);

}  // namespace llmpress
