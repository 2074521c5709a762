#include "recipes/stage_reader.h"

#include <string>

#include "quantizers/method.h"
#include "recipes/prune_section.h"
#include "recipes/settings_section.h"
#include "recipes/train_section.h"
#include "recipes/weights_section.h"
#include "recipes/words.h"

namespace llmpress {
namespace {

using Path = std::filesystem::path;

// Larger seeds would not survive YAML's signed integers.
constexpr std::size_t kMaxSeed = std::size_t{1} << 62;

MergeLoraStage read_merge_lora(const YamlNode& node, const Path& folder) {
  const Section section(node, "merge_lora");
  const YamlNode& adapter = section.require("adapter");
  return {.adapter = resolve_path(folder, text_of(adapter, "'adapter'")),
          .scale = section.number("scale", 1.0, -1000, 1000),
          .position = node.position};
}

SmoothStage read_smooth(const YamlNode& node) {
  const Section section(node, "smooth");
  SmoothStage stage{.position = node.position};
  std::string& name = stage.config.method;
  const std::vector<std::string_view> names = method_names(
      [](const QuantizerMethod& method) { return method.moves_scales(); });
  if (section.has("method")) {
    name = names[section.choice_index("method", names)];
  }
  for (const std::string_view other : names) {
    if (other == name) continue;
    for (const auto& setting : find_quantizer_method(other).settings) {
      const std::string_view keys[] = {setting.key};
      section.forbid(keys, "does not apply to method '" + name + "'");
    }
  }
  read_settings(section, find_quantizer_method(name).settings, name,
                stage.config);
  if (const YamlNode* weights = section.find("weights")) {
    stage.weights = read_weights(*weights, WeightScheme{});
  }
  return stage;
}

RotateStage read_rotate(const YamlNode& node) {
  const Section section(node, "rotate");
  RotateStage stage{.position = node.position};
  stage.seed = section.count("seed", stage.seed, 0, kMaxSeed);
  stage.online = section.boolean("online", stage.online);
  return stage;
}

InjectOutliersStage read_inject_outliers(const YamlNode& node) {
  const Section section(node, "inject_outliers");
  InjectOutliersStage stage{.position = node.position};
  stage.factor = section.number("factor", stage.factor, 1e-6, 1e6);
  stage.channels = section.count("channels", stage.channels, 1, 1 << 20);
  return stage;
}

QuantizeKvCacheStage read_quantize_kv_cache(const YamlNode& node) {
  const Section section(node, "quantize_kv_cache");
  QuantizeKvCacheStage stage{.position = node.position};
  stage.type =
      section.choice<KvScaleType>("type", stage.type, kKvScaleTypeWords);
  return stage;
}

bool quantize_needs_calibration(const QuantizeConfig& config) {
  const QuantizerMethod& method = method_of(config);
  return method.chooses_precision() || any(method.needs(config)) ||
         config.input.range == ActivationQuant::Range::kStatic;
}

}  // namespace

Path resolve_path(const Path& folder, const std::string& path) {
  return std::filesystem::absolute(folder / path).lexically_normal();
}

Stage read_stage(const YamlNode& node, const Path& folder) {
  const Section section(node, "stage");
  if (node.keys.size() != 1) {
    fail_at(node.position,
            "an entry of 'stages' is one stage; found " +
                (node.keys.empty() ? "none"
                                   : quote(node.keys[0].name) + " and '" +
                                         node.keys[1].name + "'"));
  }
  const std::string& name = node.keys[0].name;
  const YamlNode& body = node.items[0];
  if (name == "merge_lora") return read_merge_lora(body, folder);
  if (name == "prune") return read_prune(body);
  if (name == "smooth") return read_smooth(body);
  if (name == "rotate") return read_rotate(body);
  if (name == "inject_outliers") return read_inject_outliers(body);
  if (name == "quantize") return read_quantize(body, folder);
  if (name == "quantize_kv_cache") return read_quantize_kv_cache(body);
  if (name == "train") return read_train(body, folder);
  if (name == "tune") return read_tune(body, folder);
  return read_distill(body, folder);
}

bool needs_calibration(const Stage& stage) {
  if (const auto* prune = std::get_if<PruneStage>(&stage)) {
    return needs_calibration(prune->config);
  }
  if (const auto* quantize = std::get_if<QuantizeStage>(&stage)) {
    return quantize->importance.empty() &&
           quantize_needs_calibration(quantize->config);
  }
  return std::holds_alternative<SmoothStage>(stage) ||
         std::holds_alternative<QuantizeKvCacheStage>(stage);
}

}  // namespace llmpress
