// Tokens by their beginnings, to find those that a text begins with. Cost: a
// step a byte, each a search among the bytes that follow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

class TokenTrie {
 public:
  using Entry = std::pair<std::string, TokenId>;

  TokenTrie() = default;
  // Of two entries of one spelling the last counts.
  explicit TokenTrie(std::vector<Entry> entries);

  // Calls visit(length, id) for every token that `text` begins with, the
  // shortest first. An empty token is never found.
  template <class Visit>
  void each_prefix(std::string_view text, Visit&& visit) const {
    std::size_t node = 0;
    for (std::size_t at = 0; at < text.size(); ++at) {
      node = child(node, static_cast<unsigned char>(text[at]));
      if (node == 0) return;
      if (nodes_[node].token != kNone) visit(at + 1, nodes_[node].token);
    }
  }

 private:
  static constexpr TokenId kNone = 0xFFFFFFFF;
  struct Node {
    std::uint32_t first_child = 0, children = 0;
    TokenId token = kNone;
    unsigned char byte = 0;  // that leads here
  };
  // 0, the root, if there is none.
  std::size_t child(std::size_t node, unsigned char byte) const;

  std::vector<Node> nodes_{1};  // children of one node side by side, by byte
};

}  // namespace llmpress
