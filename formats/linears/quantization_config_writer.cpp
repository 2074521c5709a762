// Writing quantization_config; reading is in quantization_config.cpp.
#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "compress/core/error.h"
#include "formats/files/json_check.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {
namespace {

using json = nlohmann::ordered_json;  // keys stay in the order written here

json args_json(const std::optional<QuantArgs>& args) {
  if (!args) return nullptr;
  json j;
  j["num_bits"] = args->bits;
  j["type"] = args->floating ? "float" : "int";
  j["symmetric"] = args->symmetric;
  j["group_size"] =
      args->group_size == 0 ? json(nullptr) : json(args->group_size);
  j["strategy"] = args->strategy;
  j["block_structure"] =
      args->block_rows == 0 ? json(nullptr)
                            : json::array({args->block_rows, args->block_cols});
  j["dynamic"] = args->dynamic;
  j["actorder"] = args->order_by_group ? json("group") : json(nullptr);
  // MXFP8 is told from other 8-bit floats by it.
  const bool exponents = args->floating && args->bits == 8 && !args->dynamic &&
                         args->strategy == "group";
  j["scale_dtype"] = exponents ? json("torch.uint8") : json(nullptr);
  j["zp_dtype"] = args->symmetric ? json(nullptr) : json("torch.int8");
  j["observer"] = args->dynamic ? json(nullptr) : json("minmax");
  j["observer_kwargs"] = json::object();
  return j;
}

json extension_json(const LinearExtension& e) {
  json j = json::object();
  if (e.outlier_threshold > 0) j["outlier_threshold"] = e.outlier_threshold;
  if (e.input_hadamard > 0) j["input_hadamard"] = e.input_hadamard;
  if (e.sparse_2of4) j["sparse_2of4"] = true;
  if (e.sparse_bits > 0) {
    j["sparse_bits"] = e.sparse_bits;
    j["sparse_group_size"] = e.sparse_group_size;
  }
  return j;
}

bool is_plain(const LinearScheme& scheme) {
  return !scheme.weights && !scheme.input && scheme.format == "dense";
}

// Linears of one scheme, in order of their first name.
struct SchemeGroup {
  LinearScheme scheme{};
  bool head = false;  // the head alone
  std::vector<std::string> linears{};
};

// "...mlp.experts.3.down_proj": one of those that tokens are routed to.
bool is_expert_name(std::string_view name) {
  return name.find(".experts.") != std::string_view::npos;
}
constexpr std::string_view kExpertPattern = "re:.*\\.experts\\..*";

bool has_experts(const SchemeGroup& group) {
  return std::ranges::any_of(group.linears, is_expert_name);
}

std::vector<SchemeGroup> group_by_scheme(
    const std::map<std::string, DescribedLinear>& linears) {
  std::vector<SchemeGroup> groups;
  for (const auto& entry : linears) {
    // clang 14 takes no structured bindings into lambdas.
    const auto& name = entry.first;
    const auto& linear = entry.second;
    if (is_plain(linear.scheme)) continue;
    auto at = std::find_if(groups.begin(), groups.end(), [&](const auto& g) {
      return g.scheme == linear.scheme && g.head == is_head_name(name);
    });
    if (at == groups.end()) {
      at = groups.insert(
          at, SchemeGroup{.scheme = linear.scheme, .head = is_head_name(name)});
    }
    at->linears.push_back(name);
  }
  return groups;
}

// With one scheme the class says it and `ignore` lists the rest; an embedding
// is of another class. Experts that are all alike are named by one pattern:
// transformers takes the scheme of experts from the group that has it.
json targets_json(const SchemeGroup& group, bool only, bool all_experts) {
  if (group.head) return group.linears;
  if (!only && all_experts) {
    json targets = json::array({kExpertPattern});
    std::ranges::remove_copy_if(group.linears, std::back_inserter(targets),
                                is_expert_name);
    return targets;
  }
  if (!only) return group.linears;
  json targets = json::array({"Linear"});
  for (const std::string& name : group.linears) {
    if (is_embedding_name(name)) targets.push_back(name);
  }
  return targets;
}

// Adds the class's name of each to those of the files.
void add_class_names(std::set<std::string>& names, const ModuleNames& modules) {
  std::set<std::string> added;
  for (const std::string& name : names) {
    added.insert(modules.name_in_class(name));
  }
  names.merge(added);
}

json groups_json(const std::vector<SchemeGroup>& groups) {
  json j = json::object();
  const auto others = std::ranges::count(groups, false, &SchemeGroup::head);
  const auto of_experts = std::ranges::count_if(groups, has_experts);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    json& group = j["group_" + std::to_string(g)];
    group["targets"] = targets_json(groups[g], others == 1,
                                    of_experts == 1 && has_experts(groups[g]));
    group["weights"] = args_json(groups[g].scheme.weights);
    group["input_activations"] = args_json(groups[g].scheme.input);
    group["output_activations"] = nullptr;
    group["format"] = groups[g].scheme.format;
  }
  return j;
}

std::string common_format(const std::vector<SchemeGroup>& groups) {
  std::set<std::string> formats;
  for (const SchemeGroup& g : groups) formats.insert(g.scheme.format);
  if (formats.empty()) return "dense";
  return formats.size() == 1 ? *formats.begin() : "mixed-precision";
}

json kv_cache_scheme_of(const json& config) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    const auto at = config.find(key);
    if (at == config.end() || !at->is_object()) continue;
    const auto kv = at->find("kv_cache_scheme");
    if (kv != at->end()) return *kv;
  }
  return nullptr;
}

// The scales are tensors of the attention modules and are carried along.
void keep_kv_cache_scheme(const json& kv, json& description) {
  if (description.is_null()) {
    description = {{"config_groups", json::object()},
                   {"format", "dense"},
                   {"ignore", json::array()},
                   {"quant_method", "compressed-tensors"},
                   {"quantization_status", "compressed"}};
  }
  if (description.value("quant_method", "") != "compressed-tensors") {
    throw Error(ErrorCode::kUnsupported,
                "config.json: quantization_config.kv_cache_scheme cannot be "
                "said in this output format; write compressed-tensors");
  }
  description["kv_cache_scheme"] = kv;
}

// transformers 5 has it in rope_parameters, where mlx-lm does not look.
void add_rope_theta(json& config) {
  const auto rope = config.find("rope_parameters");
  if (rope == config.end() || !rope->is_object()) return;
  const auto theta = rope->find("rope_theta");
  if (theta == rope->end() || config.contains("rope_theta")) return;
  config["rope_theta"] = json(*theta);
}

}  // namespace

std::string ModuleNames::name_in_class(const std::string& name) const {
  const auto exact = of_class.find(name);
  if (exact != of_class.end()) return exact->second;
  for (const auto& [files, of_the_class] : of_class) {
    if (files.ends_with('.') && name.starts_with(files)) {
      return of_the_class + name.substr(files.size());
    }
  }
  return name;
}

std::string compressed_tensors_config(
    const std::map<std::string, DescribedLinear>& linears,
    const std::vector<std::string>& others, const ModuleNames& modules) {
  std::set<std::string> ignore(others.begin(), others.end());
  json own = json::object();
  for (const auto& [name, linear] : linears) {
    if (is_plain(linear.scheme)) ignore.insert(name);
    const json e = extension_json(linear.extension);
    if (!e.empty()) own[name] = e;
  }
  add_class_names(ignore, modules);
  ignore.insert(modules.ignore.begin(), modules.ignore.end());
  auto groups = group_by_scheme(linears);
  for (SchemeGroup& group : groups) {
    std::set<std::string> names(group.linears.begin(), group.linears.end());
    add_class_names(names, modules);
    group.linears.assign(names.begin(), names.end());
  }
  if (groups.empty() && own.empty()) return {};
  json j;
  j["config_groups"] = groups_json(groups);
  j["format"] = common_format(groups);
  j["global_compression_ratio"] = nullptr;
  j["ignore"] = ignore;
  j["kv_cache_scheme"] = nullptr;
  j["quant_method"] = "compressed-tensors";
  j["quantization_status"] = "compressed";
  if (!own.empty()) j["llmpress"] = {{"version", 1}, {"linears", own}};
  return j.dump(2);
}

std::string with_described_quantization(const std::string& config_json,
                                        std::string_view method,
                                        const std::string& description,
                                        const std::string& where) {
  check_json_object(config_json, "config.json");
  check_json_object(description, where);
  json config = json::parse(config_json);
  json found = json::parse(description);
  if (!found.contains("quant_method")) found["quant_method"] = method;
  config["quantization_config"] = std::move(found);
  return config.dump(2) + "\n";
}

std::string with_quantization_config(const std::string& config_json,
                                     const std::string& quantization_config) {
  check_json_object(config_json, "config.json");
  json config = json::parse(config_json);
  const json kv = kv_cache_scheme_of(config);
  config.erase("quantization_config");
  config.erase("compression_config");
  if (config.contains("quantization") && config["quantization"].is_object()) {
    config.erase("quantization");
  }
  json description =
      quantization_config.empty() ? json() : json::parse(quantization_config);
  if (!kv.is_null()) keep_kv_cache_scheme(kv, description);
  if (description.is_null()) return config.dump(2) + "\n";
  config["quantization_config"] = description;
  // MLX looks for it there, and says no method.
  if (!description.contains("quant_method")) {
    config["quantization"] = description;
    add_rope_theta(config);
  }
  return config.dump(2) + "\n";
}

}  // namespace llmpress
