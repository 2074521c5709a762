#include "recipes/recipe_parser.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "compress/core/formatted.h"
#include "recipes/section.h"
#include "recipes/stage_reader.h"
#include "recipes/words.h"

namespace llmpress {
namespace {

using Path = std::filesystem::path;

constexpr std::size_t kMaxSeed = std::size_t{1} << 62;
constexpr std::size_t kMaxTokens = std::size_t{1} << 24;

std::string required_text(const Section& section, std::string_view key) {
  return text_of(section.require(key), quote(key));
}

CalibrationConfig read_calibration(const YamlNode& node, const Path& folder) {
  const Section section(node, "calibration");
  CalibrationConfig config;
  config.text = resolve_path(folder, required_text(section, "text"));
  config.samples = section.count("samples", config.samples, 1, kMaxTokens);
  config.sequence_length =
      section.count("sequence_length", config.sequence_length, 2, kMaxTokens);
  config.sampling =
      section.choice<Sampling>("sampling", config.sampling, kSamplingWords);
  config.seed = section.count("seed", config.seed, 0, kMaxSeed);
  config.experts = section.choice<ExpertPolicy>("experts", config.experts,
                                                kExpertPolicyWords);
  config.expert_min_tokens = section.count(
      "expert_min_tokens", config.expert_min_tokens, 1, kMaxTokens);
  return config;
}

OutputConfig read_output(const YamlNode& node, const Path& folder,
                         const OutputConfig& base) {
  const Section section(node, "output");
  OutputConfig config = base;
  if (section.has("path")) {
    config.path = resolve_path(folder, section.text("path", ""));
  }
  if (section.has("format")) {
    config.format =
        kOutputFormatWords[section.choice_index("format", kOutputFormatWords)];
  }
  config.max_shard_size =
      section.bytes("max_shard_size", config.max_shard_size);
  config.incompatible = section.choice<Incompatible>(
      "incompatible", config.incompatible, kIncompatibleWords);
  return config;
}

EvaluateConfig read_evaluate(const YamlNode& node, const Path& folder) {
  const Section section(node, "evaluate");
  EvaluateConfig config;
  config.text = resolve_path(folder, required_text(section, "text"));
  config.context = section.count("context", config.context, 2, kMaxTokens);
  config.protocol =
      section.choice<Protocol>("protocol", config.protocol, kProtocolWords);
  config.stride = std::min(config.stride, config.context);
  if (config.protocol != Protocol::kStrided) {
    constexpr std::string_view kKeys[] = {"stride"};
    section.forbid(kKeys, "needs 'protocol: strided'");
  }
  config.stride = section.count("stride", config.stride, 1, config.context);
  config.max_windows =
      section.count("max_windows", config.max_windows, 0, kMaxTokens);
  if (const YamlNode* kv_cache = section.find("kv_cache")) {
    const Section cache(*kv_cache, "kv_cache");
    config.kv_cache =
        cache.choice<KvCacheType>("type", config.kv_cache, kKvCacheWords);
    config.rotate_keys = cache.boolean("rotate_keys", config.rotate_keys);
  }
  config.activations = section.choice<EvaluatedActivations>(
      "activations", config.activations, kActivationsWords);
  return config;
}

std::vector<Stage> read_stages(const YamlNode* node, const Path& folder) {
  std::vector<Stage> stages;
  if (node == nullptr) return stages;
  if (node->kind != YamlNode::Kind::kList) {
    fail_at(node->position,
            "'stages' is " + describe(*node) + "; wants a list of stages");
  }
  for (const YamlNode& item : node->items) {
    stages.push_back(read_stage(item, folder));
  }
  return stages;
}

std::string read_variant_name(const Section& section) {
  const std::string name = required_text(section, "name");
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
  if (!plain || name[0] == '.') {
    section.refuse("name", "is '" + name +
                               "'; it names files: wants letters, digits, '_', "
                               "'-' and '.', not first");
  }
  return name;
}

// Where a variant says nothing, it goes into the recipe's output, under its
// name.
Variant read_variant(const YamlNode& node, const Path& folder,
                     const std::optional<OutputConfig>& output) {
  const Section section(node, "variant");
  Variant variant{.name = read_variant_name(section),
                  .stages = read_stages(section.find("stages"), folder),
                  .output = output,
                  .position = node.position};
  if (output && !output->path.empty()) {
    variant.output->path = output->path / variant.name;
  }
  if (const YamlNode* own = section.find("output")) {
    variant.output =
        read_output(*own, folder, variant.output.value_or(OutputConfig{}));
  }
  return variant;
}

void read_variants(const YamlNode* node, const Path& folder, Recipe& recipe) {
  if (node == nullptr) return;
  if (node->kind != YamlNode::Kind::kList || node->items.empty()) {
    fail_at(node->position, "'variants' is " +
                                (node->kind == YamlNode::Kind::kList
                                     ? std::string("an empty list")
                                     : describe(*node)) +
                                "; wants a list of variants");
  }
  for (const YamlNode& item : node->items) {
    Variant variant = read_variant(item, folder, recipe.output);
    for (const Variant& earlier : recipe.variants) {
      if (earlier.name != variant.name) continue;
      fail_at(variant.position, "variant '" + variant.name +
                                    "' is given twice; first at " +
                                    earlier.position.to_string());
    }
    recipe.variants.push_back(std::move(variant));
  }
  recipe.output.reset();
}

void override_paths(const RecipeOverrides& overrides, Recipe& recipe) {
  const auto from_caller = [](const Path& path) {
    return std::filesystem::absolute(path).lexically_normal();
  };
  if (!overrides.model.empty()) recipe.model = from_caller(overrides.model);
  if (overrides.output.empty()) return;
  const Path output = from_caller(overrides.output);
  if (recipe.variants.empty()) {
    if (!recipe.output) recipe.output.emplace();
    recipe.output->path = output;
  }
  for (Variant& variant : recipe.variants) {
    if (!variant.output) variant.output.emplace();
    variant.output->path = output / variant.name;
  }
}

void check_stages(const Recipe& recipe, const std::vector<Stage>& stages) {
  for (const Stage& stage : stages) {
    if (recipe.calibration || !needs_calibration(stage)) continue;
    fail_at(position_of(stage), quote(stage_name(stage)) +
                                    " learns from calibration data; add a "
                                    "'calibration' section with 'text'");
  }
}

// What the paths lead to is looked at before a run, not here.
void check_outputs(const Recipe& recipe) {
  const auto check = [](const std::optional<OutputConfig>& output,
                        const SourcePosition& position) {
    if (output && output->path.empty()) {
      fail_at(position, "'output' needs 'path', or --output");
    }
  };
  check(recipe.output, {.file = recipe.origin});
  for (const Variant& variant : recipe.variants) {
    check(variant.output, variant.position);
  }
}

Recipe read_recipe(const YamlNode& root, const Path& folder,
                   const std::string& origin) {
  const Section section(root, "");
  Recipe recipe{.origin = origin,
                .name = section.text("name", ""),
                .description = section.text("description", "")};
  if (section.has("model")) {
    recipe.model = resolve_path(folder, section.text("model", ""));
  }
  if (const YamlNode* node = section.find("calibration")) {
    recipe.calibration = read_calibration(*node, folder);
  }
  if (const YamlNode* node = section.find("output")) {
    recipe.output = read_output(*node, folder, {});
  }
  if (const YamlNode* node = section.find("evaluate");
      node != nullptr && node->scalar != "none") {
    recipe.evaluate = read_evaluate(*node, folder);
  }
  if (section.has("report")) {
    recipe.report = resolve_path(folder, section.text("report", ""));
  }
  if (section.has("isa")) {
    recipe.isa = kIsaWords[section.choice_index("isa", kIsaWords)];
  }
  recipe.memory_limit = section.bytes("memory_limit", recipe.memory_limit);
  if (section.has("scratch")) {
    recipe.scratch = resolve_path(folder, section.text("scratch", ""));
  }
  recipe.stages = read_stages(section.find("stages"), folder);
  read_variants(section.find("variants"), folder, recipe);
  return recipe;
}

}  // namespace

Recipe parse_recipe(const std::string& text, const Path& origin,
                    const RecipeOverrides& overrides) {
  YamlNode root = parse_yaml(text, origin.string());
  for (const std::string& assignment : overrides.set) {
    set_in_tree(root, assignment);
  }
  Recipe recipe = read_recipe(root, origin.parent_path(), origin.string());
  override_paths(overrides, recipe);
  check_stages(recipe, recipe.stages);
  for (const Variant& variant : recipe.variants) {
    check_stages(recipe, variant.stages);
  }
  check_outputs(recipe);
  return recipe;
}

Recipe load_recipe(const Path& path, const RecipeOverrides& overrides) {
  std::error_code error;
  const auto kind = std::filesystem::status(path, error).type();
  const bool regular = kind == std::filesystem::file_type::regular;
  if (error && kind != std::filesystem::file_type::not_found) {
    fail(ErrorCode::kIo, "{}: {}", path, error.message());
  }
  // A pipe would be waited for.
  std::ifstream file;
  if (regular) file.open(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file.is_open() || file.bad()) {
    fail(ErrorCode::kIo, "{}: the recipe cannot be read: {}", path,
         kind == std::filesystem::file_type::not_found ? "no such file"
         : regular                                     ? "it may not be read"
                   : "it is not a regular file");
  }
  return parse_recipe(text, path, overrides);
}

}  // namespace llmpress
