// A text from outside as one stream of token ids, alike for calibration and
// evaluation.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct TokenStream {
  std::vector<TokenId> ids{};
  std::string sha256{};  // of the file
};

// The documents of a text (formats/tokenizers/text_documents.h) one after another, each
// with BOS in front if the tokenizer adds one; or, of an HDF5 file, the ids in
// its dataset `input_ids`. Throws Error(kInvalidInput) for an id that the
// tokenizer has not.
TokenStream read_token_stream(const std::filesystem::path& path,
                              const Tokenizer& tokenizer);

}  // namespace llmpress
