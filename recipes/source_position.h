// Where something stands in a recipe, for messages that come after parsing.
#pragma once

#include <cstddef>
#include <string>

namespace llmpress {

// Equal to every other position: it is no part of what a recipe means.
struct SourcePosition {
  std::string file{};
  std::size_t line = 0, column = 0;  // from 1; 0: not from the text of a file

  // "recipe.yaml:12:7"; "recipe.yaml" without a line.
  std::string to_string() const;
  bool operator==(const SourcePosition&) const { return true; }
};

}  // namespace llmpress
