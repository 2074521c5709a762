#include "formats/tokenizers/character_map.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

constexpr std::size_t kMostMatches = 32;
// The longest decomposition in Unicode 15 has 33 bytes.
constexpr std::size_t kLongestReplacement = 1024;

constexpr std::uint8_t kNew = 0xFF, kOpen = 0xFE;
// A node whose children are being looked at.
struct Visit {
  std::size_t base = 0;
  unsigned next_label = 0;
  std::uint8_t most = 0;  // matches below
};

constexpr bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
constexpr std::uint32_t label_of(std::uint32_t unit) {
  return unit & 0x800000FF;
}

}  // namespace

CharacterMap::CharacterMap(std::string_view map, std::string place)
    : place_(std::move(place)) {
  std::uint32_t trie_bytes = 0;
  if (map.size() < sizeof(trie_bytes)) corrupt("has no trie");
  std::memcpy(&trie_bytes, map.data(), sizeof(trie_bytes));
  map.remove_prefix(sizeof(trie_bytes));
  if (trie_bytes == 0 || trie_bytes % sizeof(std::uint32_t) != 0 ||
      trie_bytes >= map.size()) {
    corrupt(formatted("of {} bytes has a trie of {}", map.size(), trie_bytes));
  }
  units_.resize(trie_bytes / sizeof(std::uint32_t));
  std::memcpy(units_.data(), map.data(), trie_bytes);
  strings_ = map.substr(trie_bytes);
  check_strings();
  check_trie(base_of(0, units_[0]));
}

void CharacterMap::corrupt(const std::string& what) const {
  fail(ErrorCode::kCorruptFile, "{}: its character map {}", place_, what);
}

void CharacterMap::check_strings() const {
  if (strings_.back() != '\0') corrupt("has an open string");
  if (valid_utf8_length(strings_) != strings_.size()) corrupt("is not UTF-8");
  for (std::size_t at = 0; at < strings_.size();) {
    const std::size_t end = strings_.find('\0', at);
    if (end - at > kLongestReplacement) {
      corrupt(formatted("replaces by {} bytes", end - at));
    }
    at = end + 1;
  }
}

// Where the children of the unit at `at` stand; all 256 are inside.
std::size_t CharacterMap::base_of(std::size_t at, std::uint32_t unit) const {
  const std::size_t base =
      at ^ (std::size_t{unit >> 10} << ((unit & (1u << 9)) >> 6));
  if ((base | 0xFF) >= units_.size()) {
    corrupt(formatted("points outside its trie of {} units", units_.size()));
  }
  return base;
}

void CharacterMap::check_leaf(std::size_t base) const {
  const std::size_t place = units_[base] & 0x7FFFFFFF;
  if (place >= strings_.size()) corrupt("points outside its strings");
}

// Depth first without recursion; nodes may be shared, but not circular.
// matches[base] is how many matches a text can have below that node.
void CharacterMap::check_trie(std::size_t root) const {
  std::vector<std::uint8_t> matches(units_.size(), kNew);
  std::vector<Visit> path;
  const auto enter = [&](std::size_t base) {
    matches[base] = kOpen;
    path.push_back({.base = base});
  };
  enter(root);
  while (!path.empty()) {
    Visit& now = path.back();
    if (now.next_label > 0xFF) {
      const Visit done = now;
      matches[done.base] = done.most;
      path.pop_back();
      continue;
    }
    const unsigned label = now.next_label;
    const std::size_t at = now.base ^ label;
    if (label_of(units_[at]) != label) {
      ++now.next_label;
      continue;
    }
    const std::size_t base = base_of(at, units_[at]);
    const bool leaf = has_leaf(units_[at]);
    if (leaf) check_leaf(base);
    if (matches[base] == kOpen) corrupt("goes in a circle");
    if (matches[base] == kNew) {
      enter(base);
      continue;  // `now` is looked at again when its child is done
    }
    const std::size_t below = matches[base] + (leaf ? 1u : 0u);
    if (below > kMostMatches) corrupt("has too many prefixes");
    now.most = std::max(now.most, static_cast<std::uint8_t>(below));
    ++now.next_label;
  }
}

std::optional<std::string_view> CharacterMap::replacement(
    std::string_view chunk) const {
  std::size_t base = base_of(0, units_[0]);
  for (const char c : chunk) {
    const auto byte = static_cast<unsigned char>(c);
    const std::size_t at = base ^ byte;
    if (byte == 0 || label_of(units_[at]) != byte) return std::nullopt;
    base = base_of(at, units_[at]);
    if (!has_leaf(units_[at])) continue;
    const std::size_t begin = units_[base] & 0x7FFFFFFF;
    return std::string_view(strings_).substr(
        begin, strings_.find('\0', begin) - begin);
  }
  return std::nullopt;
}

void CharacterMap::append(std::string& out, std::string_view grapheme) const {
  constexpr std::size_t kLongestWhole = 5;
  if (grapheme.size() <= kLongestWhole) {
    if (const auto whole = replacement(grapheme)) {
      out += *whole;
      return;
    }
  }
  for (std::size_t at = 0; at < grapheme.size();) {
    const std::size_t begin = at;
    next_utf8(grapheme, at);
    const std::string_view character = grapheme.substr(begin, at - begin);
    out += replacement(character).value_or(character);
  }
}

std::string CharacterMap::apply(std::string_view text,
                                std::size_t most_bytes) const {
  std::string out;
  out.reserve(text.size());
  std::size_t at = 0;
  for (const std::size_t end : grapheme_ends(text)) {
    append(out, text.substr(at, end - at));
    at = end;
    if (out.size() > most_bytes) {
      fail(ErrorCode::kInvalidInput, "{}: a text grows to more than {} bytes",
           place_, most_bytes);
    }
  }
  return out;
}

}  // namespace llmpress
