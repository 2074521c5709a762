#include "formats/tokenizers/unigram_model.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/token_decoder.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {

// The best way to one place of a piece: its last token.
struct UnigramModel::Step {
  static constexpr std::size_t kUnreached = static_cast<std::size_t>(-1);
  std::size_t begin = kUnreached, end = 0;
  double score = 0;  // of the whole way
  TokenId id = 0;
};

UnigramModel::UnigramModel(const std::vector<UnigramPiece>& pieces,
                           UnigramConfig config)
    : config_(std::move(config)) {
  constexpr double kUnknownPenalty = 10;
  std::vector<TokenTrie::Entry> entries;
  double smallest = std::numeric_limits<double>::infinity();
  for (const auto& [text, score] : pieces) {
    const auto id = static_cast<TokenId>(scores_.size());
    if (const auto byte = fallback_byte(text)) bytes_[*byte] = id;
    entries.emplace_back(text, id);
    scores_.push_back(score);
    smallest = std::min(smallest, score);
  }
  trie_ = TokenTrie(std::move(entries));
  unknown_score_ = smallest - kUnknownPenalty;
}

PieceEncoder UnigramModel::encoder() const {
  return [this](std::string_view piece, std::vector<TokenId>& ids) {
    encode(piece, ids);
  };
}

TokenId UnigramModel::unknown(std::string_view text) const {
  if (!config_.unknown) {
    fail(ErrorCode::kInvalidInput,
         "{}: no token for '{}', and no token for what is unknown",
         config_.origin, replace_invalid_utf8(text.substr(0, 40)));
  }
  return *config_.unknown;
}

std::vector<UnigramModel::Step> UnigramModel::best_path(
    std::string_view piece) const {
  std::vector<Step> best(piece.size() + 1);
  const auto offer = [&](const Step& step) {
    Step& now = best[step.end];
    if (now.begin == Step::kUnreached || step.score > now.score) now = step;
  };
  for (std::size_t at = 0; at < piece.size();) {
    std::size_t next = at;
    next_utf8(piece, next);
    const double so_far = best[at].score;
    bool alone = false;  // whether the character is a token
    trie_.each_prefix(piece.substr(at), [&](std::size_t length, TokenId id) {
      offer({at, at + length, scores_[id] + so_far, id});
      alone = alone || at + length == next;
    });
    if (!alone) {
      offer({at, next, unknown_score_ + so_far,
             unknown(piece.substr(at, next - at))});
    }
    at = next;
  }
  std::vector<Step> path;
  for (std::size_t end = piece.size(); end > 0; end = best[end].begin) {
    path.push_back(best[end]);
  }
  std::ranges::reverse(path);
  return path;
}

void UnigramModel::append_unknown(std::string_view text,
                                  std::vector<TokenId>& ids) const {
  const auto byte = [&](char c) {
    return bytes_[static_cast<unsigned char>(c)];
  };
  if (config_.byte_fallback &&
      std::ranges::all_of(text, [&](char c) { return byte(c).has_value(); })) {
    for (const char c : text) ids.push_back(*byte(c));
    return;
  }
  // Unknown ones side by side may spell a token together.
  std::optional<TokenId> whole;
  trie_.each_prefix(text, [&](std::size_t length, TokenId id) {
    if (length == text.size()) whole = id;
  });
  ids.push_back(whole.value_or(*config_.unknown));
}

void UnigramModel::encode(std::string_view piece,
                          std::vector<TokenId>& ids) const {
  const std::vector<Step> path = best_path(piece);
  for (std::size_t i = 0; i < path.size();) {
    if (path[i].id != config_.unknown) {
      ids.push_back(path[i++].id);
      continue;
    }
    const std::size_t begin = path[i].begin;
    std::size_t end = begin;
    for (; i < path.size() && path[i].id == config_.unknown; ++i) {
      end = path[i].end;
    }
    append_unknown(piece.substr(begin, end - begin), ids);
  }
}

}  // namespace llmpress
