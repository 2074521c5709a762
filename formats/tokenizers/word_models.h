// Models whose tokens are words or begin with the start of one:
//
//   WordPiece  BERT (Schuster and Nakajima 2012): from left to right the longest
//              token that fits; those inside a word have a prefix, usually "##".
//              A word that has no such cut, or too many characters, is unknown.
//   WordLevel  a word is a token, or unknown
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizers/piece_model.h"
#include "formats/tokenizers/token_trie.h"

namespace llmpress {

struct WordConfig {
  std::optional<TokenId> unknown{};
  std::string prefix = "##";
  std::size_t most_characters = 100;  // of a word
  std::string origin{};               // named in messages
};

class WordPieceModel final : public PieceModel {
 public:
  WordPieceModel(const Vocabulary& vocabulary, WordConfig config);
  PieceEncoder encoder() const override;

 private:
  bool cut(std::string_view word, std::vector<TokenId>& ids) const;

  WordConfig config_;
  TokenTrie starts_{}, continuations_{};  // the latter without their prefix
};

class WordLevelModel final : public PieceModel {
 public:
  WordLevelModel(Vocabulary vocabulary, WordConfig config);
  PieceEncoder encoder() const override;

 private:
  Vocabulary vocabulary_;
  WordConfig config_;
};

}  // namespace llmpress
