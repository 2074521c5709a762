// adapter_config.json of peft_adapter.h.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/adapters/peft_adapter.h"
#include "formats/files/json_reader.h"

namespace llmpress {
namespace {

constexpr std::uint64_t kMaxRank = 1 << 20;

// Keys that are read here, or that only say how the adapter was trained.
// Whatever else stands in the file must be off.
constexpr std::array<std::string_view, 31> kHarmlessKeys{
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
    "_commit_hash"};

// Initializations that leave the base as it was. The others (pissa, olora,
// corda, loftq, lora_ga) take out of the base what they put into A and B, so
// that the adapter means nothing beside the original base.
constexpr std::array<std::string_view, 3> kHarmlessInitializations{
    "gaussian", "eva", "orthogonal"};

template <class Names>
bool is_one_of(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

[[noreturn]] void invalid(const JsonView& view, const std::string& what) {
  fail(ErrorCode::kInvalidInput, "{}: {}", view.place(), what);
}

bool is_off(const JsonView& view) {
  if (view.is_null()) return true;
  if (view.is_string()) return view.text().empty();
  if (view.is_array()) return view.items().empty();
  if (view.is_object()) return view.members().empty();
  try {
    return !view.boolean();
  } catch (const Error&) {
    return false;  // a number
  }
}

void check_keys(const JsonView& root) {
  const std::string type = root.at("peft_type").text();
  if (type != "LORA") {
    root.at("peft_type").unsupported("found '" + type + "', wanted 'LORA'");
  }
  for (const auto& [key, value] : root.members()) {
    if (is_one_of(kHarmlessKeys, key) || is_off(value)) continue;
    value.unsupported("'" + key +
                      "' is set, and would change what the adapter means or "
                      "is not known here");
  }
}

void check_initialization(const JsonView& root) {
  const auto view = root.find("init_lora_weights");
  if (!view) return;
  if (!view->is_string()) {
    view->boolean();
    return;
  }
  std::string name = view->text();
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (is_one_of(kHarmlessInitializations, name)) return;
  view->unsupported("'" + view->text() +
                    "' changed the base when training began; convert the "
                    "adapter to plain LoRA with PEFT first");
}

// A list of names, or one name or pattern.
std::vector<std::string> names_of(const JsonView& root, const char* key) {
  std::vector<std::string> names;
  const auto view = root.find(key);
  if (!view) return names;
  if (view->is_string()) return {view->text()};
  for (const JsonView& item : view->items()) names.push_back(item.text());
  return names;
}

std::size_t rank_in(const JsonView& view) {
  const std::uint64_t rank = view.natural(kMaxRank);
  if (rank == 0) invalid(view, "found 0, wanted a rank of at least 1");
  return static_cast<std::size_t>(rank);
}

double alpha_in(const JsonView& view) {
  const double alpha = view.number();
  if (!std::isfinite(alpha)) invalid(view, "is not finite");
  return alpha;
}

// The keys of the objects in a file's members, in the order of the file, which
// decides where two keys match; JsonView has them sorted. (An ordered_json
// would take time by the square of their number.)
using KeyOrder = std::map<std::string, std::vector<std::string>>;

KeyOrder key_order(std::string_view text) {
  using Json = nlohmann::json;
  KeyOrder keys;
  std::string member;
  [[maybe_unused]] const Json whole = Json::parse(
      text, [&](int depth, Json::parse_event_t event, Json& parsed) {
        if (event != Json::parse_event_t::key) return true;
        if (depth == 1) member = parsed.get<std::string>();
        if (depth == 2) keys[member].push_back(parsed.get<std::string>());
        return true;
      });
  return keys;
}

// rank_pattern or alpha_pattern.
template <class Value>
PatternValues<Value> pattern_of(const JsonView& root, const KeyOrder& order,
                                const char* member,
                                Value (*value_in)(const JsonView&)) {
  PatternValues<Value> pattern;
  const auto view = root.find(member);
  if (!view || view->members().empty()) return pattern;
  const std::vector<std::string>& keys = order.at(member);
  for (const std::string& key : keys) {
    pattern.values.push_back(value_in(view->at(key)));
  }
  pattern.keys = ModulePatterns(keys, view->place());
  pattern.names = keys;
  return pattern;
}

}  // namespace

std::size_t PeftConfig::rank_of(const std::string& path) const {
  return rank_pattern.of(path, rank);
}

double PeftConfig::alpha_of(const std::string& path) const {
  return alpha_pattern.of(path, alpha);
}

double PeftConfig::scaling_of(const std::string& path) const {
  const auto r = static_cast<double>(rank_of(path));
  return alpha_of(path) / (use_rslora ? std::sqrt(r) : r);
}

PeftConfig parse_peft_config(std::string_view text, const std::string& where) {
  const JsonDocument document(text, where);
  const JsonView root = document.root();
  check_keys(root);
  check_initialization(root);
  const KeyOrder order = key_order(text);
  PeftConfig config;
  config.base_model = root.text_or("base_model_name_or_path", "");
  if (const auto r = root.find("r")) config.rank = rank_in(*r);
  if (const auto a = root.find("lora_alpha")) config.alpha = alpha_in(*a);
  config.use_rslora = root.bool_or("use_rslora", false);
  config.use_dora = root.bool_or("use_dora", false);
  config.lora_bias = root.bool_or("lora_bias", false);
  config.fan_in_fan_out = root.bool_or("fan_in_fan_out", false);
  config.bias = root.text_or("bias", "none");
  if (config.bias != "none" && config.bias != "all" &&
      config.bias != "lora_only") {
    root.at("bias").unsupported("found '" + config.bias +
                                "', wanted none, all or lora_only");
  }
  if (config.use_dora && config.lora_bias) {
    root.at("lora_bias").unsupported("DoRA has no bias of its own");
  }
  config.target_modules = names_of(root, "target_modules");
  config.modules_to_save = names_of(root, "modules_to_save");
  config.rank_pattern = pattern_of(root, order, "rank_pattern", rank_in);
  config.alpha_pattern = pattern_of(root, order, "alpha_pattern", alpha_in);
  return config;
}

}  // namespace llmpress
