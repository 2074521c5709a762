// Tokens that are found in the text before anything else looks at it: special
// tokens and whatever was added to a trained vocabulary. Leftmost first, of two
// that start at the same place the longer.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/files/json_reader.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct AddedToken {
  TokenId id = 0;
  std::string content{};
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space on its left with it
  bool rstrip = false;
  bool normalized = false;  // looked for in the normalized text
  bool special = false;
};
// One entry of tokenizer.json's added_tokens, or of tokenizer_config.json's
// added_tokens_decoder, where the id is the key.
AddedToken read_added_token(const JsonView& json, TokenId id);

// Throws Error(kCorruptFile) at `place` for a token that is empty or longer
// than any real one, so that looking for it is bounded work.
void check_added_token(const std::string& content, const JsonView& place);

class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  struct Part {
    std::string_view text{};
    std::optional<TokenId> id{};  // of the token that stands here
  };
  // Parts of `text`, in order; without its empty stretches.
  std::vector<Part> split(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t at) const;

  std::vector<AddedToken> tokens_{};              // in the order of their bytes
  std::array<std::size_t, 257> first_of_byte_{};  // into tokens_
};

}  // namespace llmpress
