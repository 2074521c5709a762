#include "recipes/prune_section.h"

#include <charconv>
#include <initializer_list>
#include <string>
#include <vector>

#include "compress/core/formatted.h"
#include "recipes/selection_section.h"
#include "recipes/settings_section.h"

namespace llmpress {
namespace {

using Keys = std::initializer_list<std::string_view>;

void forbid_unless(bool applies, const Section& section, Keys keys,
                   const PruneMethodFacts& method) {
  if (applies) return;
  section.forbid({keys.begin(), keys.size()},
                 "does not apply to method '" + std::string(method.name) + "'");
}

void read_pattern(const Section& section, PruneConfig& config) {
  if (!section.has("pattern")) return;
  const std::string text = section.text("pattern", "");
  if (text == "unstructured") return;
  const char* end = text.data() + text.size();
  const auto [colon, code] = std::from_chars(text.data(), end, config.keep);
  bool valid = code == std::errc() && colon != end && *colon == ':';
  if (valid) {
    const auto [stop, second] = std::from_chars(colon + 1, end, config.of);
    valid = second == std::errc() && stop == end;
  }
  if (!valid || config.keep == 0 || config.keep >= config.of ||
      config.of > 256) {
    section.refuse("pattern",
                   "is '" + text +
                       "'; wants unstructured or n:m, n of every m "
                       "weights kept, 0 < n < m <= 256, such as 2:4");
  }
}

void read_sparsity(const Section& section, PruneConfig& config) {
  config.sparsity = section.number("sparsity", config.sparsity, 0, 0.999);
  read_pattern(section, config);
  if (!config.patterned()) return;
  if (section.has("sparsity") && config.sparsity != config.target_sparsity()) {
    section.refuse("sparsity",
                   formatted("contradicts the pattern, which removes {} of {}",
                             config.of - config.keep, config.of));
  }
  config.sparsity = config.target_sparsity();
}

// What single settings cannot see.
void check_settings(const Section& section, const PruneConfig& config) {
  if (config.allocation == SparsityAllocation::kOwl && config.patterned()) {
    section.refuse("allocation",
                   "cannot be 'owl' with a pattern, which is the "
                   "same everywhere");
  }
  if (config.damping_bound < config.damping_fraction) {
    section.refuse("damping_bound", "is below 'damping_fraction'");
  }
}

}  // namespace

PruneStage read_prune(const YamlNode& node) {
  const Section section(node, "prune");
  PruneStage stage{.position = node.position};
  PruneConfig& config = stage.config;
  if (section.has("method")) {
    std::vector<std::string_view> names;
    for (const PruneMethodFacts& row : prune_methods()) {
      names.push_back(row.name);
    }
    config.method =
        prune_methods()[section.choice_index("method", names)].method;
  }
  const PruneMethodFacts& method = facts_of(config.method);
  const bool kv_heads = config.method == PruneMethod::kKvHeads;
  forbid_unless(method.single_weights, section,
                {"pattern", "targets", "ignore"}, method);
  forbid_unless(!kv_heads, section, {"sparsity"}, method);
  if (kv_heads) section.require("kv_heads");
  read_sparsity(section, config);
  read_settings(section, prune_settings(), method.name, config);
  check_settings(section, config);
  if (method.single_weights) stage.layers = read_selection(section);
  return stage;
}

}  // namespace llmpress
