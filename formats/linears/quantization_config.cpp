#include "formats/linears/quantization_config.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/core/python_regex.h"
#include "formats/files/json_check.h"
#include "formats/linears/kv_scheme.h"
#include "formats/linears/quantization_config_json.h"
#include "formats/linears/quantization_methods.h"

namespace llmpress {
namespace {

using namespace quantization_json;

// --- compressed-tensors
// -------------------------------------------------------

bool orders_by_group(const json& object, const std::string& where) {
  const json* const order = find(object, "actorder");
  if (order == nullptr) return false;
  if (order->is_boolean()) return order->get<bool>();
  const std::string name = string_at(object, "actorder", "", where);
  return name == "group" || name == "dynamic";
}

QuantArgs read_args(const json& object, const std::string& where) {
  QuantArgs args;
  const std::size_t bits = size_at(object, "num_bits", 8, where);
  if (bits < 1 || bits > 16) refuse(where, "num_bits is out of range");
  args.bits = static_cast<int>(bits);
  const std::string type = string_at(object, "type", "int", where);
  if (type != "int" && type != "float") {
    refuse(where, "unknown type '" + type + "'", ErrorCode::kUnsupported);
  }
  args.floating = type == "float";
  args.symmetric = bool_at(object, "symmetric", true, where);
  const json* const dynamic = find(object, "dynamic");
  args.dynamic = dynamic != nullptr && *dynamic != false;  // true or "local"
  args.group_size = size_at(object, "group_size", 0, where);
  const bool by_row = find(object, "group_size") != nullptr;
  args.strategy = string_at(
      object, "strategy",
      args.group_size != 0 ? "group" : (by_row ? "channel" : "tensor"), where);
  read_block(object, "block_structure", args, where);
  args.order_by_group = orders_by_group(object, where);
  return args;
}

LinearScheme read_scheme(const json& group, const std::string& format,
                         const std::string& where) {
  if (find(group, "output_activations") != nullptr) {
    refuse(where, "output_activations are not supported",
           ErrorCode::kUnsupported);
  }
  LinearScheme scheme{.format = string_at(group, "format", format, where)};
  if (const json* const w = find(group, "weights")) {
    scheme.weights = read_args(require_object(*w, "weights", where), where);
  }
  if (const json* const input = find(group, "input_activations")) {
    scheme.input =
        read_args(require_object(*input, "input_activations", where), where);
    if (string_at(*input, "scale_dtype", "", where) == "torch.uint8") {
      refuse(where,
             "input_activations with powers of two for scales (MXFP8) are not "
             "supported",
             ErrorCode::kUnsupported);
    }
  }
  return scheme;
}

LinearExtension read_extension(const json& object, const std::string& where) {
  LinearExtension e;
  e.outlier_threshold = float_at(object, "outlier_threshold", where);
  e.input_hadamard = size_at(object, "input_hadamard", 0, where);
  e.sparse_2of4 = bool_at(object, "sparse_2of4", false, where);
  e.sparse_bits = static_cast<int>(
      std::min<std::size_t>(9, size_at(object, "sparse_bits", 0, where)));
  e.sparse_group_size = size_at(object, "sparse_group_size", 0, where);
  return e;
}

void read_own(const json& object, QuantizationConfig& config,
              const std::string& where) {
  const std::size_t version = size_at(object, "version", 1, where);
  if (version != 1) {
    refuse(where, formatted("llmpress version {}, this knows 1", version),
           ErrorCode::kUnsupported);
  }
  const json* const linears = find(object, "linears");
  if (linears == nullptr) return;
  for (const auto& [name, value] :
       require_object(*linears, "llmpress.linears", where).items()) {
    config.extensions[name] =
        read_extension(require_object(value, "llmpress." + name, where), where);
  }
}

void read_compressed_tensors(const json& object, QuantizationConfig& config,
                             const std::string& where) {
  config.method = "compressed-tensors";
  config.ignore = strings_at(object, "ignore", where);
  const std::string format = string_at(object, "format", "dense", where);
  if (const json* const transform = find(object, "transform_config")) {
    const json* const groups =
        transform->is_object() ? find(*transform, "config_groups") : nullptr;
    if (groups != nullptr && !groups->empty()) {
      refuse(where,
             "transform_config rotates activations, which this version "
             "does not apply",
             ErrorCode::kUnsupported);
    }
  }
  if (const json* const groups = find(object, "config_groups")) {
    for (const auto& [name, group] :
         require_object(*groups, "config_groups", where).items()) {
      if (!group.is_object()) {
        refuse(where,
               "config_groups." + name +
                   " is a preset's name; wanted it "
                   "written out",
               ErrorCode::kUnsupported);
      }
      config.groups.push_back({.targets = strings_at(group, "targets", where),
                               .scheme = read_scheme(group, format, where)});
    }
  }
  if (const json* const kv = find(object, "kv_cache_scheme")) {
    config.kv_cache =
        read_args(require_object(*kv, "kv_cache_scheme", where), where);
    check_kv_scheme(*config.kv_cache, where);
  }
  if (const json* const own = find(object, "llmpress")) {
    read_own(require_object(*own, "llmpress", where), config, where);
  }
}

// "quant_method", or what transformers takes a configuration without one for.
std::string method_of(const json& object, const std::string& where) {
  const std::string method = string_at(object, "quant_method", "", where);
  if (!method.empty()) return method;
  if (bool_at(object, "load_in_8bit", false, where) ||
      bool_at(object, "load_in_4bit", false, where)) {
    return "bitsandbytes";
  }
  return object.contains("config_groups") ? "compressed-tensors" : "";
}

void read_method(const json& object, QuantizationConfig& config,
                 const std::string& where) {
  const std::string name = method_of(object, where);
  if (name == "compressed-tensors") {
    return read_compressed_tensors(object, config, where);
  }
  std::string known = "compressed-tensors";
  for (const QuantizationMethod& method : foreign_quantization_methods()) {
    if (method.name == name) return method.read(object, config, where);
    known += ", " + std::string(method.name);
  }
  if (name.empty()) {
    refuse(where, "'quant_method' is missing; known are " + known);
  }
  refuse(where,
         "quant_method '" + name + "' is not supported; known are " + known +
             ". Give the model that it was made from",
         ErrorCode::kUnsupported);
}

// The rules of GPTQ's `dynamic`, one group each and read by rising key, in the
// order of the file: the first that matches counts.
void order_as_written(const json& rules, const std::string& config_json,
                      QuantizationConfig& config) {
  if (config.method != "gptq") return;
  const auto root = nlohmann::ordered_json::parse(config_json);
  const auto at = root.find("quantization_config");
  if (at == root.end()) return;
  std::vector<QuantizationConfig::Group> ordered;
  for (const auto& rule : at->at("dynamic").items()) {
    const auto index = std::distance(rules.begin(), rules.find(rule.key()));
    ordered.push_back(config.groups[static_cast<std::size_t>(index)]);
  }
  std::ranges::move(ordered, config.groups.begin());
}

}  // namespace

bool is_embedding_name(std::string_view module) {
  return module.find("embed") != std::string_view::npos ||
         module.ends_with("wte") || module.ends_with("wpe");
}

bool is_head_name(std::string_view module) {
  return module == "lm_head" || module.ends_with(".lm_head");
}

std::vector<std::string> QuantizationConfig::notes(
    const std::string& where) const {
  if (input_scales == "float") return {};
  return {formatted(
      "{}: quantization_config.scale_fmt '{}': some programs round the scales "
      "of "
      "inputs to powers of two; here they are any numbers, which moves logits "
      "less than rounding inputs does",
      where, input_scales)};
}

void QuantizationConfig::index(const std::string& where) {
  const auto is_pattern = [](const std::string& target) {
    return target.starts_with("re:");
  };
  std::size_t patterns = 0;
  for (const Group& group : groups) {
    patterns += static_cast<std::size_t>(
        std::ranges::count_if(group.targets, is_pattern));
  }
  const auto regex_of = [&](const std::string& target, std::size_t count) {
    return python_regex(std::string_view(target).substr(3),
                        {.place = where + ": quantization_config",
                         .shown = target,
                         .max_steps = steps_per_pattern(count)});
  };
  group_of_linear.clear();
  group_of_pattern.clear();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (const std::string& target : groups[g].targets) {
      if (is_pattern(target)) {
        group_of_pattern.emplace_back(regex_of(target, patterns), g);
      } else {
        group_of_linear.emplace(target, g);
      }
    }
  }
  ignored_names.clear();
  ignored_patterns.clear();
  for (const std::string& entry : ignore) {
    if (is_pattern(entry)) {
      ignored_patterns.push_back(regex_of(entry, ignore.size()));
    } else {
      ignored_names.insert(entry);
    }
  }
}

const LinearScheme& QuantizationConfig::scheme_of(
    std::string_view linear) const {
  static const LinearScheme none;
  const bool embedding = is_embedding_name(linear);
  if (ignored_names.contains(linear) ||
      (!embedding && ignored_names.contains("Linear")) ||
      std::ranges::any_of(ignored_patterns, [&](const Regex& pattern) {
        return pattern.matches_start(linear);
      })) {
    return none;
  }
  const auto exact = group_of_linear.find(linear);
  if (exact != group_of_linear.end()) return groups[exact->second].scheme;
  for (const auto& [pattern, group] : group_of_pattern) {
    if (pattern.matches_start(linear)) return groups[group].scheme;
  }
  if (embedding && !embeddings) return none;
  const auto by_class = group_of_linear.find("Linear");
  return by_class == group_of_linear.end() ? none
                                           : groups[by_class->second].scheme;
}

const LinearExtension& QuantizationConfig::extension_of(
    std::string_view linear) const {
  static const LinearExtension none;
  const auto at = extensions.find(linear);
  return at == extensions.end() ? none : at->second;
}

QuantizationConfig parse_quantization_config(const std::string& config_json,
                                             const std::string& where) {
  check_json_object(config_json, where);
  const json root = json::parse(config_json);
  QuantizationConfig config;
  if (read_mlx_quantization(root, config, where)) return config;
  const json* object = find(root, "quantization_config");
  if (object == nullptr) object = find(root, "compression_config");
  if (object == nullptr) return config;
  if (require_object(*object, "it", where).empty()) return config;
  read_method(*object, config, where);
  if (const json* const rules = find(*object, "dynamic")) {
    order_as_written(*rules, config_json, config);
  }
  config.index(where);
  return config;
}

}  // namespace llmpress
