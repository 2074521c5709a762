// tokenizer_config.json and the older special_tokens_map.json and
// added_tokens.json: what a tokenizer puts around a text, and which tokens are
// special or added.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizers/added_tokens.h"

namespace llmpress {

// Ids from outside are bounded so that a file cannot make a table of any size.
inline constexpr TokenId kLargestTokenId = (1u << 22) - 1;

struct TokenizerConfig {
  std::optional<bool> add_bos{};            // add_bos_token
  std::optional<std::string> bos{}, eos{};  // as text
  // Of SentencePiece: a text after a special token gets a space in front, too.
  bool legacy = true;
  std::vector<AddedToken> added{};     // added_tokens_decoder or .json
  std::vector<std::string> special{};  // every other token that it names
  std::string origin{};
};

// `folder` names the files in messages. An empty one says nothing.
TokenizerConfig read_tokenizer_config(const TokenizerSideFiles& files,
                                      const std::string& folder);

// Puts what `config` says about its added tokens over `tokens`, which are the
// tokenizer's own: flags by content, tokens it does not have behind them.
void merge_added_tokens(std::vector<AddedToken>& tokens,
                        const TokenizerConfig& config);

}  // namespace llmpress
