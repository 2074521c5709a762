// quantization_config of methods other than compressed-tensors.
#include "formats/linears/quantization_methods.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/linears/mlx_floats.h"
#include "formats/linears/quantization_config_json.h"

namespace llmpress {
namespace {

using namespace quantization_json;

void read_fp8(const json& object, QuantizationConfig& config,
              const std::string& where) {
  config.method = "fp8";
  for (const char* key : {"modules_to_not_convert", "ignored_layers"}) {
    for (std::string& name : strings_at(object, key, where)) {
      config.ignore.push_back(std::move(name));
    }
  }
  QuantArgs weights{.floating = true};
  read_block(object, "weight_block_size", weights, where);
  if (weights.block_rows != 0) weights.strategy = "block";
  QuantArgs input{.floating = true};
  input.dynamic =
      string_at(object, "activation_scheme", "dynamic", where) == "dynamic";
  input.strategy = input.dynamic ? "token" : "tensor";
  if (input.dynamic && weights.block_cols != 0) {
    input.strategy = "group";
    input.group_size = weights.block_cols;
  }
  config.input_scales = string_at(object, "scale_fmt", "float", where);
  config.groups.push_back(
      {.targets = {"Linear"},
       .scheme = {
           .weights = weights, .input = input, .format = "float-quantized"}});
}

void read_bitsandbytes(const json& object, QuantizationConfig& config,
                       const std::string& where) {
  config.method = "bitsandbytes";
  config.int8_threshold = float_at(object, "llm_int8_threshold", where);
}

// gpt-oss: what is packed shows by its tensors (`_blocks` and `_scales` of a
// stack of experts), the rest is plain.
void read_mxfp4(const json&, QuantizationConfig& config, const std::string&) {
  config.method = "mxfp4";
}

// How a Linear is packed stands beside it (torchao.h); what quant_type asks for
// is not needed to read it.
void read_torchao_method(const json&, QuantizationConfig& config,
                         const std::string&) {
  config.method = "torchao";
}

// --- integers stored transposed (gptq.h, awq.h)
// ------------------------------

LinearScheme int_scheme(const std::string& format, std::size_t bits,
                        std::size_t group_size, bool symmetric, bool by_order,
                        const std::string& where) {
  if (bits < 1 || bits > 16) refuse(where, "bits is out of range");
  return {
      .weights = QuantArgs{.bits = static_cast<int>(bits),
                           .symmetric = symmetric,
                           .strategy = group_size == 0 ? "channel" : "group",
                           .group_size = group_size,
                           .order_by_group = by_order},
      .format = format};
}

LinearScheme int_scheme(const json& object, const std::string& format,
                        const LinearScheme& otherwise,
                        const std::string& where) {
  const QuantArgs& args = *otherwise.weights;
  return int_scheme(
      format,
      size_at(object, "bits", static_cast<std::size_t>(args.bits), where),
      size_at(object, "group_size", args.group_size, where),
      bool_at(object, "sym", args.symmetric, where),
      bool_at(object, "desc_act", args.order_by_group, where), where);
}

// "checkpoint_format", which newer files call "format" too.
std::string gptq_version(const json& object, const std::string& where) {
  std::string version = string_at(object, "checkpoint_format", "", where);
  if (version.empty()) version = string_at(object, "format", "gptq", where);
  if (version == "gptq" || version == "gptq_v2") return version;
  refuse(where, "checkpoint_format '" + version + "' of GPTQ is not supported",
         ErrorCode::kUnsupported);
}

// GPTQModel's rules for modules: "-:" leaves those that match dense, "+:" (or
// nothing) changes what it names.
void read_dynamic(const json& rules, const LinearScheme& otherwise,
                  QuantizationConfig& config, const std::string& where) {
  for (const auto& [key, value] :
       require_object(rules, "dynamic", where).items()) {
    const bool skip = key.starts_with("-:");
    const std::string pattern =
        "re:" + (skip || key.starts_with("+:") ? key.substr(2) : key);
    if (skip) {
      config.groups.push_back({.targets = {pattern}});
      continue;
    }
    require_object(value, "dynamic." + key, where);
    config.groups.push_back(
        {.targets = {pattern},
         .scheme = int_scheme(value, otherwise.format, otherwise, where)});
  }
}

void read_gptq(const json& object, QuantizationConfig& config,
               const std::string& where) {
  config.method = "gptq";
  const LinearScheme all =
      int_scheme(object, gptq_version(object, where),
                 int_scheme("", 4, 128, true, false, where), where);
  if (const json* const rules = find(object, "dynamic")) {
    read_dynamic(*rules, all, config, where);
  }
  config.groups.push_back({.targets = {"Linear"}, .scheme = all});
}

// A regular expression for these characters.
std::string escaped(const std::string& text) {
  std::string pattern;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_') {
      pattern += '\\';
    }
    pattern += c;
  }
  return pattern;
}

void read_awq(const json& object, QuantizationConfig& config,
              const std::string& where) {
  config.method = "awq";
  std::string version = string_at(object, "version", "gemm", where);
  std::ranges::transform(version, version.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  if (version != "gemm") {
    refuse(where, "version '" + version + "' of AWQ is not supported",
           ErrorCode::kUnsupported);
  }
  const std::size_t bits =
      size_at(object, "bits", size_at(object, "w_bit", 4, where), where);
  const std::size_t group_size = size_at(
      object, "group_size", size_at(object, "q_group_size", 128, where), where);
  for (const std::string& part :
       strings_at(object, "modules_to_not_convert", where)) {
    config.ignore.push_back("re:.*" + escaped(part));  // anywhere in a name
  }
  config.groups.push_back(
      {.targets = {"Linear"},
       .scheme = int_scheme("awq", bits, group_size, false, false, where)});
}

// AutoRound packs as GPTQ does, in either version, or as AWQ.
std::string auto_round_format(const json& object, const std::string& where) {
  const std::string packing =
      string_at(object, "packing_format", "auto_round:auto_gptq", where);
  if (packing == "auto_round") return "gptq_v2";
  if (packing == "auto_round:gptqmodel") return "gptq_v2";
  if (packing == "auto_round:auto_gptq" || packing == "auto_round:gptq") {
    return "gptq";
  }
  if (packing == "auto_round:auto_awq" || packing == "auto_round:awq") {
    return "awq";
  }
  refuse(where, "packing_format '" + packing + "' is not supported",
         ErrorCode::kUnsupported);
}

void read_auto_round(const json& object, QuantizationConfig& config,
                     const std::string& where) {
  config.method = "auto-round";
  const std::string type = string_at(object, "data_type", "int", where);
  if (type != "int") {
    refuse(where, "data_type '" + type + "' of AutoRound is not supported",
           ErrorCode::kUnsupported);
  }
  const std::string format = auto_round_format(object, where);
  const LinearScheme all = int_scheme(
      object, format, int_scheme("", 4, 128, true, false, where), where);
  if (const json* const extra = find(object, "extra_config")) {
    for (const auto& [name, value] :
         require_object(*extra, "extra_config", where).items()) {
      require_object(value, "extra_config." + name, where);
      const LinearScheme scheme = int_scheme(value, format, all, where);
      if (scheme.weights->bits >= 16) {
        config.ignore.push_back(name);
      } else {
        config.groups.push_back({.targets = {name}, .scheme = scheme});
      }
    }
  }
  config.groups.push_back({.targets = {"Linear"}, .scheme = all});
}

// --- MLX
// ----------------------------------------------------------------------

LinearScheme mlx_scheme(const json& object, const std::string& where) {
  const std::string mode = string_at(object, "mode", "affine", where);
  const MlxFloatMode* const floats = find_mlx_float_mode(mode);
  if (mode != "affine" && floats == nullptr) {
    refuse(where, "mode '" + mode + "' of MLX is not supported",
           ErrorCode::kUnsupported);
  }
  const std::size_t bits = size_at(
      object, "bits",
      floats != nullptr ? static_cast<std::size_t>(floats->bits) : 4, where);
  const std::size_t group = size_at(
      object, "group_size", floats != nullptr ? floats->group : 64, where);
  if (bits < 2 || bits > 8) refuse(where, "bits is out of range");
  if (floats != nullptr &&
      (static_cast<int>(bits) != floats->bits || group != floats->group)) {
    refuse(where,
           formatted("mode {} of MLX has {} bits in groups of {}, not {} "
                     "in {}",
                     mode, floats->bits, floats->group, bits, group));
  }
  return {.weights = QuantArgs{.bits = static_cast<int>(bits),
                               .floating = floats != nullptr,
                               .symmetric = floats != nullptr,
                               .strategy = "group",
                               .group_size = group},
          .format = "mlx"};
}

// A module as a target: a stack of experts means the Linear of each of them,
// under either name that it may have (expert_stacks.h).
std::string mlx_target(const std::string& name) {
  struct Leaf {
    std::string_view stacked, numbered;
  };
  constexpr std::array<Leaf, 3> kLeaves{
      {{"gate_proj", "w1"}, {"up_proj", "w3"}, {"down_proj", "w2"}}};
  for (const std::string_view middle : {".switch_mlp.", ".experts."}) {
    for (const Leaf& leaf : kLeaves) {
      const std::string tail = std::string(middle) + std::string(leaf.stacked);
      if (!name.ends_with(tail)) continue;
      return formatted("re:{}\\.experts\\.[0-9]+\\.(?:{}|{})$",
                       escaped(name.substr(0, name.size() - tail.size())),
                       leaf.stacked, leaf.numbered);
    }
  }
  return name;
}

}  // namespace

bool read_mlx_quantization(const json& root, QuantizationConfig& config,
                           const std::string& where) {
  const json* object = find(root, "quantization");
  if (object == nullptr) object = find(root, "quantization_config");
  const bool mlx = object != nullptr && object->is_object() &&
                   !object->contains("quant_method") &&
                   object->contains("bits") && object->contains("group_size");
  if (!mlx) return false;
  config.method = "mlx";
  config.embeddings = true;
  const LinearScheme all = mlx_scheme(*object, where);
  for (const auto& [name, value] : object->items()) {
    if (value == false) config.ignore.push_back(mlx_target(name));
    if (!value.is_object()) continue;
    config.groups.push_back(
        {.targets = {mlx_target(name)}, .scheme = mlx_scheme(value, where)});
  }
  config.groups.push_back({.targets = {"Linear"}, .scheme = all});
  config.index(where);
  return true;
}

namespace {

constexpr std::array kMethods{
    QuantizationMethod{"fp8", read_fp8},
    QuantizationMethod{"bitsandbytes", read_bitsandbytes},
    QuantizationMethod{"mxfp4", read_mxfp4},
    QuantizationMethod{"torchao", read_torchao_method},
    QuantizationMethod{"gptq", read_gptq},
    QuantizationMethod{"awq", read_awq},
    QuantizationMethod{"auto-round", read_auto_round},
    QuantizationMethod{"intel/auto-round", read_auto_round}};

}  // namespace

std::span<const QuantizationMethod> foreign_quantization_methods() {
  return kMethods;
}

}  // namespace llmpress
