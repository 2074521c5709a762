#include <optional>
#include <string>
#include <vector>

#include "compress/core/setting.h"
#include "quantizers/method.h"
#include "recipes/schemes.h"
#include "recipes/selection_section.h"
#include "recipes/settings_section.h"
#include "recipes/stage_reader.h"
#include "recipes/weights_section.h"

namespace llmpress {
namespace {

std::string read_method(const Section& section) {
  if (!section.has("method")) return std::string(kDefaultMethod);
  const auto names = method_names([](const QuantizerMethod&) { return true; });
  return std::string(names[section.choice_index("method", names)]);
}

void start_from_scheme(const Section& section, QuantizeStage& stage) {
  const QuantizerMethod& method = method_of(stage.config);
  stage.scheme = section.text("scheme", "");
  if (!stage.scheme.empty()) section.choice_index("scheme", scheme_names());
  const std::string_view name =
      stage.scheme.empty() ? method.scheme : std::string_view(stage.scheme);
  if (name.empty()) {
    stage.config.weights.group_size = method.group_size;
    return;
  }
  const SchemePreset& preset = *find_scheme(name);
  stage.config.weights = preset.weights;
  stage.config.input = preset.input;
}

void read_precision(const Section& section, QuantizeStage& stage) {
  QuantizeConfig& config = stage.config;
  start_from_scheme(section, stage);
  if (const YamlNode* node = section.find("weights")) {
    config.weights = read_weights(*node, config.weights);
  }
  if (section.has("input") && section.has("activations")) {
    section.refuse("activations", "is another word for 'input', given too");
  }
  for (const std::string_view key : {"input", "activations"}) {
    if (const YamlNode* node = section.find(key)) {
      config.input = read_input(*node, config.input);
    }
  }
}

void read_method_section(const Section& section, QuantizeConfig& config) {
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.has_section()) continue;
    const YamlNode* const node = section.find(method.name);
    if (node == nullptr) continue;
    if (method.name != config.method) {
      section.refuse(method.name,
                     "does not apply to method '" + config.method + "'");
    }
    read_settings(Section(*node, method.name), method.settings, config.method,
                  config);
  }
}

void read_solver(const Section& section, QuantizeConfig& config) {
  if (method_of(config).delegates()) {
    const auto names =
        method_names([](const QuantizerMethod& m) { return m.solves; });
    if (section.has("solver")) {
      config.solver = names[section.choice_index("solver", names)];
    }
  } else if (section.has("solver")) {
    section.refuse("solver", "does not apply to method '" + config.method +
                                 "', which is its own");
  }
}

// Keys of the stage itself that belong to the method that rounds.
void read_rounding(const Section& section, QuantizeConfig& config) {
  const QuantizerMethod& rounding = rounding_method(config);
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.settings_in_stage) continue;
    if (method.name == rounding.name) {
      read_settings(section, method.settings, config.method, config);
      continue;
    }
    for (const auto& setting : method.settings) {
      const std::string_view keys[] = {setting.key};
      section.forbid(keys, "needs method or solver '" +
                               std::string(method.name) + "'; this is '" +
                               config.method + "'");
    }
  }
}

void read_budget(const Section& section, QuantizeStage& stage) {
  const auto chooses = [](const QuantizerMethod& method) {
    return method.chooses_precision();
  };
  if (!chooses(method_of(stage.config))) {
    constexpr std::string_view kKeys[] = {"target_bits", "target_bytes"};
    section.forbid(kKeys,
                   "needs 'method: " + join_words(method_names(chooses)) + "'");
    return;
  }
  if (section.has("target_bits") == section.has("target_bytes")) {
    section.refuse("method", "is '" + stage.config.method +
                                 "', which needs either 'target_bits' or "
                                 "'target_bytes'");
  }
  if (section.has("target_bits")) {
    stage.target_bits = section.number("target_bits", 0, 1, 32);
  } else {
    stage.target_bytes = section.bytes("target_bytes", 0);
  }
}

bool takes(WeightKinds kinds, WeightType type) {
  switch (kinds) {
    case WeightKinds::kAny:
      return true;
    case WeightKinds::kIntegers:
      return type == WeightType::kInt;
    case WeightKinds::kIntegersAndBlocks:
      return type == WeightType::kInt || type == WeightType::kGgml;
    case WeightKinds::kTables:
      return type == WeightType::kNf4 || type == WeightType::kFp4;
  }
  return false;
}

// What a row says of the stage; `where` finds a key that the recipe has.
template <class Where>
void check_method(const Section& section, const QuantizerMethod& method,
                  const QuantizeConfig& config, const Where& where) {
  if (!takes(method.weights, config.weights.type)) {
    const bool integers = method.weights == WeightKinds::kIntegers;
    section.refuse(where("weights"),
                   "gives type '" + std::string(facts_of(config.weights).name) +
                       "' to method '" + config.method + "'" +
                       (integers ? ", which rounds to integers" : ""));
  }
  if (method.check == nullptr) return;
  const auto fault = method.check(config);
  if (!fault) return;
  const YamlNode* const own =
      method.has_section() ? section.find(method.name) : nullptr;
  if (own != nullptr && is_key(method.name, fault->key)) {
    Section(*own, method.name).refuse(fault->key, fault->message);
  }
  section.refuse(where(fault->key), fault->message);
}

// The method, and what rounds for it.
std::vector<const QuantizerMethod*> methods_in(const QuantizeConfig& config) {
  std::vector<const QuantizerMethod*> methods = {&method_of(config)};
  if (method_of(config).delegates()) {
    methods.push_back(&rounding_method(config));
  }
  return methods;
}

void check_precision(const Section& section, const QuantizeConfig& config) {
  using Kind = ActivationQuant::Kind;
  const auto where = [&](std::string_view key) {
    if (key == "input" && section.has("activations")) key = "activations";
    if (section.has(key)) return key;
    if (key != "weights" && key != "input") return key;
    return std::string_view(section.has("scheme") ? "scheme" : "method");
  };
  for (const QuantizerMethod* method : methods_in(config)) {
    check_method(section, *method, config, where);
  }
  const WeightType type = config.weights.type;
  const std::string name(facts_of(config.weights).name);
  const bool fp8 = type == WeightType::kFp8E4M3 || type == WeightType::kFp8E5M2;
  if (config.input.kind == Kind::kInt && type != WeightType::kInt) {
    section.refuse(where("input"),
                   "rounds activations to integers, weights to " + name);
  }
  if (config.input.kind == Kind::kFp8 && !fp8) {
    section.refuse(where("input"),
                   "rounds activations to fp8, weights to " + name);
  }
}

// What calibration would find, in a file.
void read_importance(const Section& section,
                     const std::filesystem::path& folder,
                     QuantizeStage& stage) {
  const auto takes_one = [](const QuantizerMethod& method) {
    return method.takes_importance;
  };
  if (!section.has("importance")) return;
  if (!takes_one(method_of(stage.config))) {
    section.refuse("importance",
                   "needs 'method: " + join_words(method_names(takes_one)) +
                       "'; this is '" + stage.config.method + "'");
  }
  if (stage.config.input.range == ActivationQuant::Range::kStatic) {
    section.refuse("importance",
                   "says nothing of static ranges, which need calibration");
  }
  stage.importance = resolve_path(folder, section.text("importance", ""));
}

}  // namespace

QuantizeStage read_quantize(const YamlNode& node,
                            const std::filesystem::path& folder) {
  const Section section(node, "quantize");
  QuantizeStage stage{.position = node.position};
  QuantizeConfig& config = stage.config;
  config.method = read_method(section);
  read_precision(section, stage);
  read_method_section(section, config);
  read_solver(section, config);
  read_rounding(section, config);
  read_budget(section, stage);
  read_importance(section, folder, stage);
  stage.layers = read_selection(section);
  check_precision(section, config);
  for (const QuantizerMethod* method : methods_in(config)) {
    if (method->settle != nullptr) method->settle(config);
  }
  return stage;
}

}  // namespace llmpress
