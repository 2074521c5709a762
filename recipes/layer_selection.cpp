#include "recipes/layer_selection.h"

#include <algorithm>
#include <cstddef>
#include <regex>

#include "compress/core/error.h"

namespace llmpress {
namespace {

constexpr std::string_view kRegexPrefix = "re:";
constexpr std::string_view kLinearClass = "Linear";

// std::regex recurses over its pattern: a longer one could exhaust the stack.
constexpr std::size_t kMaxPatternLength = 512;

std::regex compile(const std::string& pattern) {
  if (pattern.size() > kMaxPatternLength) {
    throw Error(ErrorCode::kInvalidArgument,
                "a regular expression of " + std::to_string(pattern.size()) +
                    " characters; at most 512 are taken");
  }
  try {
    return std::regex(pattern, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& error) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "'" + pattern + "' is not a regular expression: " + error.what());
  }
}

bool matches_start(const std::string& pattern, std::string_view name) {
  return std::regex_search(name.begin(), name.end(), compile(pattern),
                           std::regex_constants::match_continuous);
}

bool is_last_name(std::string_view entry, std::string_view full_name) {
  return full_name.size() > entry.size() && full_name.ends_with(entry) &&
         full_name[full_name.size() - entry.size() - 1] == '.';
}

bool matches(const std::string& entry, std::string_view full_name,
             bool by_class_or_pattern) {
  if (entry.starts_with(kRegexPrefix)) {
    return by_class_or_pattern &&
           matches_start(entry.substr(kRegexPrefix.size()), full_name);
  }
  if (entry == kLinearClass) return by_class_or_pattern;
  return full_name == entry || is_last_name(entry, full_name);
}

}  // namespace

bool selects(const LayerSelection& selection, std::string_view full_name,
             ModuleRole role) {
  const bool in_block = role == ModuleRole::kBlockLinear;
  const bool targeted =
      selection.targets.empty()
          ? in_block
          : std::any_of(selection.targets.begin(), selection.targets.end(),
                        [&](const std::string& entry) {
                          return matches(entry, full_name, in_block);
                        });
  return targeted &&
         std::none_of(selection.ignore.begin(), selection.ignore.end(),
                      [&](const std::string& entry) {
                        return matches(entry, full_name, true);
                      });
}

void check_pattern(const std::string& pattern) { compile(pattern); }

}  // namespace llmpress
