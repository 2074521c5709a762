// The unigram model of Kudo 2018 (arXiv:1804.10959): a piece is cut so that the
// sum of its tokens' scores, which are log-probabilities, is largest.
//
// As `tokenizers` does it: from left to right, the best way to each place; of
// two sums that are equal the one that was found first, so the token that
// begins first. A character that is no token by itself may also be unknown, at
// 10 below the smallest score of all. Unknown characters side by side are one
// unknown token, or its bytes <0x00>..<0xFF> with byte fallback.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizers/piece_model.h"
#include "formats/tokenizers/token_trie.h"

namespace llmpress {

struct UnigramPiece {
  std::string text{};
  double score = 0;
};

struct UnigramConfig {
  std::optional<TokenId> unknown{};
  bool byte_fallback = false;
  std::string origin{};  // named in messages
};

class UnigramModel final : public PieceModel {
 public:
  // `pieces` by id.
  UnigramModel(const std::vector<UnigramPiece>& pieces, UnigramConfig config);
  PieceEncoder encoder() const override;

 private:
  struct Step;
  std::vector<Step> best_path(std::string_view piece) const;
  void encode(std::string_view piece, std::vector<TokenId>& ids) const;
  void append_unknown(std::string_view text, std::vector<TokenId>& ids) const;
  TokenId unknown(std::string_view text) const;

  UnigramConfig config_;
  TokenTrie trie_{};
  std::vector<double> scores_{};  // by id
  double unknown_score_ = 0;
  std::array<std::optional<TokenId>, 256> bytes_{};
};

}  // namespace llmpress
