// tokenizer_config.json: what a tokenizer puts around a text, and which tokens
// are special.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/added_tokens.h"

namespace llmpress {

// Ids from outside are bounded so that a file cannot make a table of any size.
inline constexpr TokenId kLargestTokenId = (1u << 22) - 1;

struct TokenizerConfig {
  std::optional<bool> add_bos{};            // add_bos_token
  std::optional<std::string> bos{}, eos{};  // as text
  // Of SentencePiece: a text after a special token gets a space in front, too.
  bool legacy = true;
  std::vector<AddedToken> added{};     // added_tokens_decoder
  std::vector<std::string> special{};  // every other token that it names
  std::string origin{};
};

// `json` may be empty: nothing is said.
TokenizerConfig read_tokenizer_config(std::string_view json,
                                      const std::string& origin);

// Puts what `config` says about its added tokens over `tokens`, which are the
// tokenizer's own: flags by content, tokens it does not have behind them.
void merge_added_tokens(std::vector<AddedToken>& tokens,
                        const TokenizerConfig& config);

}  // namespace llmpress
