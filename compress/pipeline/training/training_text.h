// Texts as documents of token ids.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct TrainingText {
  std::vector<std::vector<TokenId>> documents{};
  std::size_t tokens = 0;
  std::string sha256{};  // of the file
};

// As a calibration text (token_stream.h), document by document, each with BOS in
// front and EOS behind where the tokenizer has them. The ids of an HDF5 file are
// one document. Throws Error(kInvalidInput) for a text without a token.
TrainingText read_training_text(const std::filesystem::path& path,
                                const Tokenizer& tokenizer);

}  // namespace llmpress
