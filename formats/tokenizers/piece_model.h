// What makes ids of the pieces that a pre-tokenizer cuts a text into.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

using Vocabulary = std::unordered_map<std::string, TokenId>;

// Appends the ids of a piece, which must be well-formed UTF-8.
using PieceEncoder =
    std::function<void(std::string_view piece, std::vector<TokenId>& ids)>;

class PieceModel {
 public:
  virtual ~PieceModel() = default;
  // One for each text, since it may remember pieces that it saw; the model must
  // outlive it. It throws Error(kInvalidInput) at what the vocabulary has no
  // token for.
  virtual PieceEncoder encoder() const = 0;
};

}  // namespace llmpress
