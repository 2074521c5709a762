#include "formats/tokenizers/token_trie.h"

#include <algorithm>

namespace llmpress {

TokenTrie::TokenTrie(std::vector<Entry> entries) {
  std::ranges::stable_sort(entries, {}, &Entry::first);  // bytes as unsigned
  // Level by level, so that the children of a node stand side by side.
  struct Range {
    std::size_t node = 0, begin = 0, end = 0, depth = 0;
  };
  std::vector<Range> ranges{{0, 0, entries.size(), 0}};
  for (std::size_t r = 0; r < ranges.size(); ++r) {
    const Range range = ranges[r];
    std::size_t at = range.begin;
    for (; at < range.end && entries[at].first.size() == range.depth; ++at) {
      nodes_[range.node].token = entries[at].second;
    }
    nodes_[range.node].first_child = static_cast<std::uint32_t>(nodes_.size());
    while (at < range.end) {
      const auto byte =
          static_cast<unsigned char>(entries[at].first[range.depth]);
      const std::size_t begin = at;
      while (at < range.end && static_cast<unsigned char>(
                                   entries[at].first[range.depth]) == byte) {
        ++at;
      }
      ranges.push_back({nodes_.size(), begin, at, range.depth + 1});
      nodes_.push_back({.byte = byte});
      ++nodes_[range.node].children;
    }
  }
}

std::size_t TokenTrie::child(std::size_t node, unsigned char byte) const {
  const auto first =
      nodes_.begin() + static_cast<std::ptrdiff_t>(nodes_[node].first_child);
  const auto last = first + static_cast<std::ptrdiff_t>(nodes_[node].children);
  const auto found =
      std::ranges::lower_bound(first, last, byte, {}, &Node::byte);
  if (found == last || found->byte != byte) return 0;
  return static_cast<std::size_t>(found - nodes_.begin());
}

}  // namespace llmpress
