#include "recipes/layer_selection.h"

#include <algorithm>
#include <cstddef>

#include "compress/core/python_regex.h"

namespace llmpress {
namespace {

constexpr std::string_view kRegexPrefix = "re:";
constexpr std::string_view kLinearClass = "Linear";

bool is_last_name(std::string_view entry, std::string_view full_name) {
  return full_name.size() > entry.size() && full_name.ends_with(entry) &&
         full_name[full_name.size() - entry.size() - 1] == '.';
}

}  // namespace

std::vector<LayerSelector::Entry> LayerSelector::compiled(
    const std::vector<std::string>& entries, const std::string& place) {
  std::vector<Entry> ready;
  for (const std::string& entry : entries) {
    if (!entry.starts_with(kRegexPrefix)) {
      ready.emplace_back(entry);
      continue;
    }
    ready.emplace_back(
        python_regex(std::string_view(entry).substr(kRegexPrefix.size()),
                     {.place = place,
                      .code = ErrorCode::kInvalidArgument,
                      .shown = entry,
                      .max_steps = steps_per_pattern(entries.size())}));
  }
  return ready;
}

bool LayerSelector::any_matches(const std::vector<Entry>& entries,
                                std::string_view full_name,
                                bool by_class_or_pattern) {
  return std::ranges::any_of(entries, [&](const Entry& entry) {
    if (const auto* pattern = std::get_if<Regex>(&entry)) {
      return by_class_or_pattern && pattern->matches_start(full_name);
    }
    const auto& name = std::get<std::string>(entry);
    if (name == kLinearClass) return by_class_or_pattern;
    return full_name == name || is_last_name(name, full_name);
  });
}

LayerSelector::LayerSelector(const LayerSelection& selection,
                             const std::string& place)
    : targets_(compiled(selection.targets, place)),
      ignore_(compiled(selection.ignore, place)) {}

bool LayerSelector::selects(std::string_view full_name, ModuleRole role) const {
  const bool in_block = role == ModuleRole::kBlockLinear;
  const bool targeted =
      targets_.empty() ? in_block : any_matches(targets_, full_name, in_block);
  return targeted && !any_matches(ignore_, full_name, true);
}

}  // namespace llmpress
