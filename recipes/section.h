// Typed, checked reading of one section of a recipe. Making a Section checks
// every key of it, so that a misspelt key is found before a missing one.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/setting.h"
#include "recipes/key_table.h"
#include "recipes/yaml_tree.h"

namespace llmpress {

// The word for `value` in its table.
template <class T>
std::string_view name_of(std::span<const Named<T>> table, const T& value) {
  for (const auto& row : table) {
    if (row.value == value) return row.name;
  }
  return {};
}

class Section {
 public:
  // `name` as in the key table. Throws if `node` is no map or has a key that
  // does not belong.
  Section(const YamlNode& node, std::string_view name);

  const SourcePosition& position() const { return node_->position; }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  const YamlNode* find(std::string_view key) const;
  // Throws if the key is absent.
  const YamlNode& require(std::string_view key) const;

  // The value of `key`, or `absent`. Throw at a value of another type or beyond
  // the bounds, which are part of the range.
  std::int64_t integer(std::string_view key, std::int64_t absent,
                       std::int64_t low, std::int64_t high) const;
  std::size_t count(std::string_view key, std::size_t absent, std::size_t low,
                    std::size_t high) const;
  double number(std::string_view key, double absent, double low,
                double high) const;
  bool boolean(std::string_view key, bool absent) const;
  std::string text(std::string_view key, const std::string& absent) const;
  // A string or a list of strings.
  std::vector<std::string> texts(std::string_view key) const;
  // "5GB", "512MiB" or a plain number of bytes.
  std::uint64_t bytes(std::string_view key, std::uint64_t absent) const;
  template <class T>
  T choice(std::string_view key, const T& absent,
           std::span<const Named<T>> table) const {
    if (!has(key)) return absent;
    std::vector<std::string_view> names;
    for (const auto& row : table) names.push_back(row.name);
    return table[choice_index(key, names)].value;
  }
  // Which of `names` the value is.
  std::size_t choice_index(std::string_view key,
                           std::span<const std::string_view> names) const;

  // Throws "<where>: 'key' in 'section' <message>".
  [[noreturn]] void refuse(std::string_view key,
                           const std::string& message) const;
  // Throws if one of `keys` is given: "'key' in 'section' <message>".
  void forbid(std::span<const std::string_view> keys,
              const std::string& message) const;

 private:
  const std::string& scalar(std::string_view key, const char* wanted) const;
  const std::string& plain_scalar(std::string_view key,
                                  const char* wanted) const;

  const YamlNode* node_;
  std::string_view name_;
};

// The non-empty string in `node`; `what` names it in messages.
std::string text_of(const YamlNode& node, const std::string& what);

}  // namespace llmpress
