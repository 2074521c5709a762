// write_peft_adapter of peft_adapter.h.
#include <cmath>
#include <nlohmann/json.hpp>

#include "compress/core/checked.h"
#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/adapters/adapter_folder.h"
#include "formats/adapters/peft_adapter.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

using json = nlohmann::json;

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  fail(ErrorCode::kInvalidArgument, "adapter: '{}': {}", path, what);
}

void check_replacement(const std::string& path,
                       const std::optional<PeftReplacement>& replacement) {
  if (replacement && checked_elements(replacement->shape, path) !=
                         replacement->values.size()) {
    refuse(path, "a replacement's size is not its shape's");
  }
}

void check_module(const std::string& path, const PeftModule& module) {
  const std::size_t out = module.B.rows();
  const bool fits =
      module.A.rows() == module.B.cols() &&
      module.A.empty() == module.B.empty() &&
      (module.magnitude.empty() || module.magnitude.size() == out) &&
      (module.lora_bias.empty() || module.lora_bias.size() == out);
  if (!fits) refuse(path, "A, B, magnitude and bias do not fit");
  if (!module.has_factors() && !module.weight && !module.bias) {
    refuse(path, "changes nothing");
  }
  if (!std::isfinite(module.scaling)) refuse(path, "scaling is not finite");
  check_replacement(path, module.weight);
  check_replacement(path, module.bias);
}

NamedTensor tensor(const std::string& path, const char* suffix, DType dtype,
                   std::vector<std::size_t> shape,
                   std::span<const float> values) {
  return rounded_tensor("base_model.model." + path + suffix, dtype,
                        std::move(shape), values);
}

void add_tensors(const std::string& path, const PeftModule& module, DType dtype,
                 std::vector<NamedTensor>& tensors) {
  const auto add = [&](const char* suffix, std::vector<std::size_t> shape,
                       std::span<const float> values) {
    tensors.push_back(tensor(path, suffix, dtype, std::move(shape), values));
  };
  const MatrixF& A = module.A;
  const MatrixF& B = module.B;
  const bool factors = module.has_factors();
  if (factors) {
    add(module.embedding ? ".lora_embedding_A" : ".lora_A.weight",
        {A.rows(), A.cols()}, A.data());
    add(module.embedding ? ".lora_embedding_B" : ".lora_B.weight",
        {B.rows(), B.cols()}, B.data());
  }
  if (!module.magnitude.empty()) {
    add(".lora_magnitude_vector", {B.rows()}, module.magnitude);
  }
  if (!module.lora_bias.empty()) {
    add(".lora_B.bias", {B.rows()}, module.lora_bias);
  }
  if (module.weight) {
    add(factors ? ".base_layer.weight" : ".weight", module.weight->shape,
        module.weight->values);
  }
  if (module.bias) {
    add(factors ? ".base_layer.bias" : ".bias", module.bias->shape,
        module.bias->values);
  }
}

// A whole number without a fraction, as PEFT writes alpha.
json number(double value) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (value == std::floor(value) && std::fabs(value) < kExact) {
    return static_cast<std::int64_t>(value);
  }
  return value;
}

template <class Value>
Value commonest(const std::vector<Value>& values, Value otherwise) {
  std::map<Value, std::size_t> counts;
  for (const Value& v : values) ++counts[v];
  std::size_t most = 0;
  for (const auto& [value, count] : counts) {
    if (count <= most) continue;
    most = count;
    otherwise = value;
  }
  return otherwise;
}

// Matches `path` alone: PEFT reads the keys of patterns as expressions.
std::string escaped(const std::string& path) {
  std::string key = "^";
  for (const char c : path) {
    if (std::string_view(".\\+*?()[]{}|^$").find(c) != std::string_view::npos) {
      key += '\\';
    }
    key += c;
  }
  return key;
}

using Modules = std::map<std::string, PeftModule>;

// Without the roundings of a division and a multiplication.
double near_whole(double value) {
  const double whole = std::round(value);
  return std::fabs(value - whole) <= 1e-12 * std::fabs(whole) ? whole : value;
}

double alpha_of(const PeftModule& module, bool rank_stabilized) {
  const auto rank = static_cast<double>(module.A.rows());
  return near_whole(module.scaling *
                    (rank_stabilized ? std::sqrt(rank) : rank));
}

// "r", "lora_alpha" and where modules differ from them.
void add_ranks(const Modules& modules, bool rank_stabilized, json& config) {
  std::vector<std::size_t> ranks;
  std::vector<double> alphas;
  for (const auto& [path, module] : modules) {
    if (!module.has_factors()) continue;
    ranks.push_back(module.A.rows());
    alphas.push_back(alpha_of(module, rank_stabilized));
  }
  const std::size_t rank = commonest<std::size_t>(ranks, 8);
  const double alpha = commonest<double>(alphas, 8);
  config["r"] = rank;
  config["lora_alpha"] = number(alpha);
  config["rank_pattern"] = config["alpha_pattern"] = json::object();
  for (const auto& [path, module] : modules) {
    if (!module.has_factors()) continue;
    const std::string key = escaped(path);
    if (module.A.rows() != rank) config["rank_pattern"][key] = module.A.rows();
    const double own = alpha_of(module, rank_stabilized);
    if (own != alpha) config["alpha_pattern"][key] = number(own);
  }
}

// Whether all modules with factors have the part, or none.
bool all_or_none(const Modules& modules, std::vector<float> PeftModule::*part,
                 const char* what) {
  std::size_t with = 0, without = 0;
  for (const auto& [path, module] : modules) {
    if (!module.has_factors()) continue;
    ++((module.*part).empty() ? without : with);
    if (with != 0 && without != 0) {
      refuse(path, formatted("only some modules have a {}", what));
    }
  }
  return with != 0;
}

std::string config_json(const Modules& modules,
                        const PeftWriteOptions& options) {
  json targets = json::array(), saved = json::array();
  std::string bias = "none";
  for (const auto& [path, module] : modules) {
    if (module.has_factors()) {
      targets.push_back(path);
    } else if (module.weight) {
      saved.push_back(path);
    }
    if (module.bias && (module.has_factors() || !module.weight)) bias = "all";
  }
  json config = {
      {"base_model_name_or_path", options.base_model},
      {"bias", bias},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"lora_bias",
       all_or_none(modules, &PeftModule::lora_bias, "bias of lora_B")},
      {"lora_dropout", 0.0},
      {"modules_to_save", saved.empty() ? json() : saved},
      {"peft_type", "LORA"},
      {"target_modules", targets},
      {"task_type", "CAUSAL_LM"},
      {"use_dora", all_or_none(modules, &PeftModule::magnitude, "magnitude")},
      {"use_rslora", options.rank_stabilized}};
  add_ranks(modules, options.rank_stabilized, config);
  return config.dump(2);
}

}  // namespace

void write_peft_adapter(const std::filesystem::path& directory,
                        const Modules& modules,
                        const PeftWriteOptions& options) {
  if (modules.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "adapter: changes nothing");
  }
  std::vector<NamedTensor> tensors;
  for (const auto& [path, module] : modules) {
    check_module(path, module);
    add_tensors(path, module, options.dtype, tensors);
  }
  write_adapter_folder(directory, config_json(modules, options), tensors,
                       options.files);
}

}  // namespace llmpress
