#include "recipes/selection_section.h"

namespace llmpress {
namespace {

std::vector<std::string> read_entries(const Section& section,
                                      std::string_view key) {
  std::vector<std::string> entries = section.texts(key);
  const YamlNode* node = section.find(key);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const bool list = node->kind == YamlNode::Kind::kList;
    const SourcePosition& at = list ? node->items[i].position : node->position;
    LayerSelector({.targets = {entries[i]}}, at.to_string());  // checks it
  }
  return entries;
}

}  // namespace

LayerSelection read_selection(const Section& section) {
  LayerSelection selection{.targets = read_entries(section, "targets"),
                           .ignore = read_entries(section, "ignore")};
  if (section.has("targets") && selection.targets.empty()) {
    section.refuse("targets", "is an empty list, which would select nothing");
  }
  if (selection.targets.empty()) selection.targets = {"Linear"};
  return selection;
}

}  // namespace llmpress
