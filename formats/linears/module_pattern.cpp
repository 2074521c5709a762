#include "formats/linears/module_pattern.h"

#include <algorithm>
#include <utility>

#include "compress/core/python_regex.h"

namespace llmpress {
namespace {

// '.' is any character but a line's end, and a byte is a character.
bool is_plain_text(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
         (c >= 'a' && c <= 'z') || c == '_';
}

}  // namespace

std::optional<ModulePatterns::Plain> ModulePatterns::plain_of(
    std::string_view key) {
  Plain plain;
  if (key.starts_with('^')) {
    plain.whole_path = true;
    key.remove_prefix(1);
  }
  for (std::size_t i = 0; i < key.size(); ++i) {
    bool escaped = false;
    if (key[i] == '\\' && i + 1 < key.size()) {
      escaped = true;
      ++i;
      if (is_word(key[i]) || !is_plain_text(key.substr(i, 1))) return {};
    }
    if (!escaped && !is_word(key[i]) && key[i] != '-' && key[i] != '.') {
      return {};
    }
    plain.characters += key[i];
    plain.any.push_back(key[i] == '.' && !escaped);
  }
  return plain;
}

bool ModulePatterns::matches(const Plain& key, std::string_view path) {
  const std::size_t size = key.characters.size();
  if (path.size() < size) return false;
  const std::size_t begin = path.size() - size;
  if (begin > 0 && (key.whole_path || path[begin - 1] != '.')) return false;
  for (std::size_t i = size; i-- > 0;) {  // paths differ at their ends
    if (path[begin + i] != key.characters[i] && !key.any[i]) return false;
  }
  return true;
}

ModulePatterns::ModulePatterns(const std::vector<std::string>& keys,
                               const std::string& place) {
  keys_.reserve(keys.size());
  for (const std::string& key : keys) {
    if (auto plain = plain_of(key)) {
      keys_.emplace_back(std::move(*plain));
      continue;
    }
    keys_.emplace_back(
        python_regex("(.*\\.)?(" + key + ")$",
                     {.place = place,
                      .shown = key,
                      .max_steps = steps_per_pattern(keys.size())}));
  }
}

std::optional<std::size_t> ModulePatterns::first_match(
    std::string_view path) const {
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    if (matches(i, path)) return i;
  }
  return std::nullopt;
}

std::vector<std::size_t> ModulePatterns::unmatched(
    std::span<const std::string> paths) const {
  std::vector<std::size_t> keys;
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    const bool found = std::ranges::any_of(
        paths, [&](const std::string& path) { return matches(i, path); });
    if (!found) keys.push_back(i);
  }
  return keys;
}

bool ModulePatterns::matches(std::size_t key, std::string_view path) const {
  const auto* plain = std::get_if<Plain>(&keys_[key]);
  return plain != nullptr ? matches(*plain, path)
                          : std::get<Regex>(keys_[key]).matches_start(path);
}

}  // namespace llmpress
