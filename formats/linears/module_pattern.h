// Values by patterns of module paths, as PEFT's rank_pattern and alpha_pattern
// give them: a key stands for the modules whose path ends in it,
//   re.match(rf"(.*\.)?({key})$", path)
// and the first key that matches counts. Keys are compiled once; a key without
// operators, which nearly all are, is compared without an expression.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "compress/core/regex.h"

namespace llmpress {

class ModulePatterns {
 public:
  ModulePatterns() = default;
  // Throws Error(kInvalidInput) with `place` in front for a key that is not a
  // regular expression of Python's.
  ModulePatterns(const std::vector<std::string>& keys,
                 const std::string& place);

  // The first key that matches `path`. Throws Error(kInvalidInput) if a key
  // takes too many steps.
  std::optional<std::size_t> first_match(std::string_view path) const;

  // The keys that match none of `paths`.
  std::vector<std::size_t> unmatched(std::span<const std::string> paths) const;

 private:
  // Characters, of which '.' may be any; matches the end of a path.
  struct Plain {
    std::string characters{};
    std::vector<bool> any{};
    bool whole_path = false;
  };
  static std::optional<Plain> plain_of(std::string_view key);
  static bool matches(const Plain& key, std::string_view path);
  bool matches(std::size_t key, std::string_view path) const;

  std::vector<std::variant<Plain, Regex>> keys_{};
};

template <class Value>
struct PatternValues {
  ModulePatterns keys{};
  std::vector<std::string> names{};  // the keys as they are written
  std::vector<Value> values{};       // of each key

  Value of(std::string_view path, Value otherwise) const {
    const auto key = keys.first_match(path);
    return key ? values[*key] : otherwise;
  }
};

}  // namespace llmpress
