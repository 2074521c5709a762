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

AwqConfig read_awq(const Section& section) {
  AwqConfig awq;
  awq.ratios = section.count("ratios", awq.ratios, 1, 1000);
  awq.weight_term = section.boolean("weight_term", awq.weight_term);
  awq.clip = section.boolean("clip", awq.clip);
  if (!awq.clip) {
    constexpr std::string_view kKeys[] = {"clip_steps", "clip_max_shrink"};
    section.forbid(kKeys, "needs 'clip: true'");
  }
  awq.clip_steps = section.count("clip_steps", awq.clip_steps, 1, 1000);
  awq.clip_max_shrink =
      section.number("clip_max_shrink", awq.clip_max_shrink, 0, 0.99);
  return awq;
}

SmoothQuantConfig read_smoothquant(const Section& section) {
  SmoothQuantConfig smoothquant;
  smoothquant.search_alpha =
      section.boolean("search_alpha", smoothquant.search_alpha);
  if (smoothquant.search_alpha && section.has("alpha")) {
    section.refuse("alpha", "is searched: 'search_alpha' is true");
  }
  smoothquant.alpha = section.number("alpha", smoothquant.alpha, 0, 1);
  return smoothquant;
}

}  // namespace llmpress
