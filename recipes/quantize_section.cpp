#include <algorithm>
#include <optional>
#include <string>

#include "quantizers/method.h"
#include "recipes/schemes.h"
#include "recipes/selection_section.h"
#include "recipes/stage_reader.h"
#include "recipes/weights_section.h"
#include "recipes/words.h"

namespace llmpress {
namespace {

// The method of recipes that leaves the precision of each Linear to a budget;
// the pipeline carries it out, so it is no row of quantizer_methods().
constexpr std::string_view kAuto = "auto";

// What a method makes of a stage that names no scheme; others: WeightScheme{}.
struct MethodScheme {
  std::string_view method, scheme;
};
constexpr MethodScheme kMethodSchemes[] = {
    {"smoothquant", "W8A8"}, {"llm_int8", "W8A8"}, {"nf4", "NF4"}};

// The section of the same name as a method holds that method's keys.
constexpr std::string_view kMethodSections[] = {"awq", "smoothquant", "hqq",
                                                "llm_int8"};
constexpr std::string_view kGptqKeys[] = {
    "act_order",        "static_groups",          "group_aware_order",
    "damping_fraction", "damping_policy",         "damping_increment",
    "damping_bound",    "dead_columns",           "block_size",
    "compat",           "asymmetric_calibration", "gptaq_alpha"};
constexpr Named<std::string_view> kSolverWords[] = {{"rtn", "rtn"},
                                                    {"gptq", "gptq"}};

std::string read_method(const Section& section) {
  std::vector<std::string_view> names;
  for (const QuantizerMethod& method : quantizer_methods()) {
    names.push_back(method.name);
  }
  names.push_back(kAuto);
  if (!section.has("method")) return "rtn";
  return std::string(names[section.choice_index("method", names)]);
}

void start_from_scheme(const Section& section, QuantizeStage& stage) {
  std::string name = section.text("scheme", "");
  if (name.empty()) {
    for (const MethodScheme& row : kMethodSchemes) {
      if (row.method == stage.config.method) name = row.scheme;
    }
    // HQQ's own default, hqq/core/quantize.py.
    if (stage.config.method == "hqq") stage.config.weights.group_size = 64;
    if (name.empty()) return;
  } else {
    section.choice_index("scheme", scheme_names());
    stage.scheme = name;
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

GptqConfig read_gptq(const Section& section) {
  GptqConfig gptq;
  gptq.act_order = section.boolean("act_order", gptq.act_order);
  gptq.static_groups = section.boolean("static_groups", gptq.static_groups);
  gptq.group_aware_order =
      section.boolean("group_aware_order", gptq.group_aware_order);
  if (gptq.group_aware_order && gptq.act_order) {
    section.refuse("group_aware_order", "and 'act_order' exclude each other");
  }
  gptq.damping_fraction =
      section.number("damping_fraction", gptq.damping_fraction, 0, 100);
  gptq.damping_policy = section.choice<DampingPolicy>(
      "damping_policy", gptq.damping_policy, kDampingPolicyWords);
  gptq.damping_increment =
      section.number("damping_increment", gptq.damping_increment, 1e-9, 100);
  gptq.damping_bound =
      section.number("damping_bound", gptq.damping_bound, 0, 100);
  if (gptq.damping_policy == DampingPolicy::kRaise &&
      gptq.damping_bound < gptq.damping_fraction) {
    section.refuse("damping_bound", "is below 'damping_fraction'");
  }
  gptq.dead_columns = section.choice<DeadColumns>(
      "dead_columns", gptq.dead_columns, kDeadColumnsWords);
  gptq.block_size = section.count("block_size", gptq.block_size, 1, 1 << 20);
  gptq.stale_grid =
      section.choice<bool>("compat", gptq.stale_grid, kStaleGridWords);
  gptq.asymmetric_calibration =
      section.boolean("asymmetric_calibration", gptq.asymmetric_calibration);
  if (section.has("gptaq_alpha") && !gptq.asymmetric_calibration) {
    section.refuse("gptaq_alpha", "needs 'asymmetric_calibration: true'");
  }
  gptq.gptaq_alpha = section.number("gptaq_alpha", gptq.gptaq_alpha, 0, 1);
  return gptq;
}

HqqConfig read_hqq(const YamlNode& node) {
  const Section section(node, "hqq");
  HqqConfig hqq;
  hqq.p = section.number("p", hqq.p, 1e-3, 1);
  hqq.beta = section.number("beta", hqq.beta, 1e-3, 1e6);
  hqq.iterations = section.count("iterations", hqq.iterations, 1, 10000);
  return hqq;
}

LlmInt8Config read_llm_int8(const YamlNode& node) {
  const Section section(node, "llm_int8");
  LlmInt8Config config;
  config.threshold = section.number("threshold", config.threshold, 0, 1e6);
  config.outliers = section.choice<LlmInt8Config::Outliers>(
      "outliers", config.outliers, kOutlierWords);
  return config;
}

void read_method_sections(const Section& section, QuantizeConfig& config) {
  for (const std::string_view key : kMethodSections) {
    if (section.has(key) && key != config.method) {
      section.refuse(key, "does not apply to method '" + config.method + "'");
    }
  }
  if (const YamlNode* node = section.find("awq")) {
    config.awq = read_awq(Section(*node, "awq"));
  }
  if (const YamlNode* node = section.find("smoothquant")) {
    config.smoothquant = read_smoothquant(Section(*node, "smoothquant"));
  }
  if (const YamlNode* node = section.find("hqq")) config.hqq = read_hqq(*node);
  if (const YamlNode* node = section.find("llm_int8")) {
    config.llm_int8 = read_llm_int8(*node);
  }
}

void read_solver(const Section& section, QuantizeConfig& config) {
  const bool scaling = config.method == "awq" ||
                       config.method == "smoothquant" || config.method == kAuto;
  if (section.has("solver") && !scaling) {
    section.refuse("solver", "does not apply to method '" + config.method +
                                 "', which is its own");
  }
  config.solver =
      section.choice<std::string_view>("solver", config.solver, kSolverWords);
  if (config.method == "gptq" || config.solver == "gptq") {
    config.gptq = read_gptq(section);
  } else {
    section.forbid(kGptqKeys, "needs method or solver 'gptq'; this is '" +
                                  config.method + "'");
  }
}

void read_budget(const Section& section, QuantizeStage& stage) {
  if (stage.config.method != kAuto) {
    constexpr std::string_view kKeys[] = {"target_bits", "target_bytes"};
    section.forbid(kKeys, "needs 'method: auto'");
    return;
  }
  if (section.has("target_bits") == section.has("target_bytes")) {
    section.refuse("method",
                   "is 'auto', which needs either 'target_bits' or "
                   "'target_bytes'");
  }
  if (section.has("target_bits")) {
    stage.target_bits = section.number("target_bits", 0, 1, 32);
  } else {
    stage.target_bytes = section.bytes("target_bytes", 0);
  }
}

void check_precision(const Section& section, const QuantizeConfig& config) {
  using Kind = ActivationQuant::Kind;
  const std::string type(facts_of(config.weights).name);
  const auto where = [&](std::string_view key) {
    return section.has(key) ? key : section.has("scheme") ? "scheme" : "method";
  };
  const bool integers = config.weights.type == WeightType::kInt;
  const bool fp8 = config.weights.type == WeightType::kFp8E4M3 ||
                   config.weights.type == WeightType::kFp8E5M2;
  const bool needs_integers =
      config.method == "hqq" || config.method == "llm_int8" ||
      config.method == "gptq" || config.solver == "gptq" ||
      config.method == "imatrix";
  if (needs_integers && !integers) {
    section.refuse(where("weights"), "gives type '" + type + "' to method '" +
                                         config.method +
                                         "', which rounds to integers");
  }
  if (config.method == "hqq" && config.weights.symmetric) {
    section.refuse(
        where("weights"),
        "must be 'symmetric: false' for method 'hqq', which searches "
        "for zero points");
  }
  const bool table = config.weights.type == WeightType::kNf4 ||
                     config.weights.type == WeightType::kFp4;
  if (config.method == "nf4" && !table) {
    section.refuse(where("weights"),
                   "gives type '" + type + "' to method 'nf4'");
  }
  if (config.method == "llm_int8" &&
      (config.weights.bits != 8 || config.weights.group_size > 0)) {
    section.refuse(where("weights"),
                   "must be 8 bits with a scale a row (group_size: -1) or a "
                   "tensor (0) for method 'llm_int8'");
  }
  const char* input = section.has("activations") ? "activations" : "input";
  if (config.input.kind == Kind::kInt && !integers) {
    section.refuse(where(input),
                   "rounds activations to integers, weights to " + type);
  }
  if (config.input.kind == Kind::kFp8 && !fp8) {
    section.refuse(where(input),
                   "rounds activations to fp8, weights to " + type);
  }
  if (config.method == "llm_int8" && config.input.kind != Kind::kInt) {
    section.refuse(where(input), "must be 'type: int' for method 'llm_int8'");
  }
}

}  // namespace

QuantizeStage read_quantize(const YamlNode& node) {
  const Section section(node, "quantize");
  QuantizeStage stage{.position = node.position};
  QuantizeConfig& config = stage.config;
  config.method = read_method(section);
  read_precision(section, stage);
  read_method_sections(section, config);
  read_solver(section, config);
  read_budget(section, stage);
  stage.layers = read_selection(section);
  check_precision(section, config);
  if (config.method == "llm_int8" &&
      config.llm_int8.outliers == LlmInt8Config::Outliers::kBatch) {
    config.input.outlier_threshold =
        static_cast<float>(config.llm_int8.threshold);
  }
  return stage;
}

}  // namespace llmpress
