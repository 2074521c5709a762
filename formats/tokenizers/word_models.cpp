#include "formats/tokenizers/word_models.h"

#include <algorithm>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

TokenId unknown(const WordConfig& config, std::string_view word) {
  if (!config.unknown) {
    fail(ErrorCode::kInvalidInput,
         "{}: no token for '{}', and no token for what is unknown",
         config.origin, replace_invalid_utf8(word.substr(0, 40)));
  }
  return *config.unknown;
}

std::size_t count_characters(std::string_view word) {
  return static_cast<std::size_t>(std::ranges::count_if(word, [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

}  // namespace

WordPieceModel::WordPieceModel(const Vocabulary& vocabulary, WordConfig config)
    : config_(std::move(config)) {
  std::vector<TokenTrie::Entry> starts, continuations;
  for (const auto& [token, id] : vocabulary) {
    starts.emplace_back(token, id);
    if (token.starts_with(config_.prefix)) {
      continuations.emplace_back(token.substr(config_.prefix.size()), id);
    }
  }
  starts_ = TokenTrie(std::move(starts));
  continuations_ = TokenTrie(std::move(continuations));
}

// Longest token first at every place, without looking back.
bool WordPieceModel::cut(std::string_view word,
                         std::vector<TokenId>& ids) const {
  for (std::size_t at = 0; at < word.size();) {
    std::size_t longest = 0;
    TokenId token = 0;
    const TokenTrie& trie = at == 0 ? starts_ : continuations_;
    trie.each_prefix(word.substr(at), [&](std::size_t length, TokenId id) {
      longest = length;
      token = id;
    });
    if (longest == 0) return false;
    ids.push_back(token);
    at += longest;
  }
  return true;
}

PieceEncoder WordPieceModel::encoder() const {
  return [this](std::string_view word, std::vector<TokenId>& ids) {
    const std::size_t before = ids.size();
    if (count_characters(word) <= config_.most_characters && cut(word, ids)) {
      return;
    }
    ids.resize(before);
    ids.push_back(unknown(config_, word));
  };
}

WordLevelModel::WordLevelModel(Vocabulary vocabulary, WordConfig config)
    : vocabulary_(std::move(vocabulary)), config_(std::move(config)) {}

PieceEncoder WordLevelModel::encoder() const {
  return [this](std::string_view word, std::vector<TokenId>& ids) {
    const auto found = vocabulary_.find(std::string(word));
    ids.push_back(found == vocabulary_.end() ? unknown(config_, word)
                                             : found->second);
  };
}

}  // namespace llmpress
