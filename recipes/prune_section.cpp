#include "recipes/prune_section.h"

#include <charconv>
#include <initializer_list>
#include <string>

#include "compress/core/formatted.h"
#include "recipes/selection_section.h"
#include "recipes/words.h"

namespace llmpress {
namespace {

using Keys = std::initializer_list<std::string_view>;

void forbid_unless(bool applies, const Section& section, Keys keys,
                   const PruneConfig& config) {
  if (applies) return;
  const std::string method(
      name_of<PruneMethod>(kPruneMethodWords, config.method));
  section.forbid({keys.begin(), keys.size()},
                 "does not apply to method '" + method + "'");
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

void read_allocation(const Section& section, PruneConfig& config) {
  config.allocation = section.choice<SparsityAllocation>(
      "allocation", config.allocation, kAllocationWords);
  const bool owl = config.allocation == SparsityAllocation::kOwl;
  if (owl && config.patterned()) {
    section.refuse("allocation",
                   "cannot be 'owl' with a pattern, which is the "
                   "same everywhere");
  }
  if (!owl) {
    constexpr std::string_view kKeys[] = {"owl_threshold", "owl_lambda"};
    section.forbid(kKeys, "needs 'allocation: owl'");
  }
  config.owl_threshold =
      section.number("owl_threshold", config.owl_threshold, 1e-3, 1e6);
  config.owl_lambda = section.number("owl_lambda", config.owl_lambda, 0, 0.5);
}

void read_damping(const Section& section, PruneConfig& config) {
  config.damping_fraction =
      section.number("damping_fraction", config.damping_fraction, 0, 100);
  config.damping_policy = section.choice<DampingPolicy>(
      "damping_policy", config.damping_policy, kDampingPolicyWords);
  config.damping_increment =
      section.number("damping_increment", config.damping_increment, 1e-9, 100);
  config.damping_bound =
      section.number("damping_bound", config.damping_bound, 0, 100);
  if (config.damping_bound < config.damping_fraction) {
    section.refuse("damping_bound", "is below 'damping_fraction'");
  }
}

void read_structured(const Section& section, PruneConfig& config) {
  config.importance = section.choice<Importance>(
      "importance", config.importance, kImportanceWords);
  config.depth_importance = section.choice<DepthImportance>(
      "depth_importance", config.depth_importance, kDepthImportanceWords);
  config.kv_grouping = section.choice<KvGrouping>(
      "kv_grouping", config.kv_grouping, kKvGroupingWords);
  if (config.method == PruneMethod::kKvHeads) section.require("kv_heads");
  config.kv_heads = section.count("kv_heads", config.kv_heads, 1, 1 << 20);
  config.multiple_of =
      section.count("multiple_of", config.multiple_of, 1, 1 << 20);
  config.heal = section.boolean("heal", config.heal);
}

}  // namespace

PruneStage read_prune(const YamlNode& node) {
  const Section section(node, "prune");
  PruneStage stage{.position = node.position};
  PruneConfig& config = stage.config;
  using Method = PruneMethod;
  config.method =
      section.choice<Method>("method", config.method, kPruneMethodWords);
  const Method method = config.method;
  const bool single = removes_single_weights(method);
  forbid_unless(single, section,
                {"pattern", "allocation", "storage", "targets", "ignore"},
                config);
  forbid_unless(method != Method::kKvHeads, section, {"sparsity"}, config);
  forbid_unless(method == Method::kWanda, section, {"wanda_variant"}, config);
  forbid_unless(method == Method::kSparseGpt, section, {"block_size"}, config);
  forbid_unless(method == Method::kFfn || method == Method::kHeads ||
                    method == Method::kHidden,
                section, {"importance"}, config);
  forbid_unless(method == Method::kDepth, section, {"depth_importance"},
                config);
  forbid_unless(method == Method::kKvHeads, section,
                {"kv_heads", "kv_grouping"}, config);
  forbid_unless(method == Method::kFfn || method == Method::kHidden, section,
                {"multiple_of"}, config);
  forbid_unless(!single, section, {"heal"}, config);
  forbid_unless(!single || method == Method::kSparseGpt, section,
                {"damping_fraction", "damping_policy", "damping_increment",
                 "damping_bound"},
                config);
  read_sparsity(section, config);
  read_allocation(section, config);
  config.storage = section.choice<SparseStorage>("storage", config.storage,
                                                 kSparseStorageWords);
  config.wanda_variant = section.boolean("wanda_variant", config.wanda_variant);
  config.block_size =
      section.count("block_size", config.block_size, 1, 1 << 20);
  read_damping(section, config);
  read_structured(section, config);
  if (single) stage.layers = read_selection(section);
  return stage;
}

}  // namespace llmpress
