// The one list of what a recipe may say and where, and the help for who says it
// elsewhere or misspells it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "recipes/recipe_parser.h"

namespace llmpress {

// Section names are the keys that hold them; "" is the top level, "stage" an
// entry of a list of stages, "variant" an entry of `variants`.
std::span<const RecipeKey> key_table();

bool is_key(std::string_view section, std::string_view key);

// "unknown key 'bitz' in 'weights'; did you mean 'bits'?"
// "'bits' does not belong in 'quantize'; it belongs in 'weights' or 'input'"
std::string unknown_key_message(std::string_view section, std::string_view key);

// The nearest of `words` by edit distance, or "" if none is near.
std::string_view nearest_word(std::string_view word,
                              std::span<const std::string_view> words);

// "a, b or c".
std::string join_words(std::span<const std::string_view> words,
                       std::string_view last = " or ");

}  // namespace llmpress
