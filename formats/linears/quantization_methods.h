// How the quantization_config of each `quant_method` is read, one row a method.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "formats/linears/quantization_config.h"

namespace llmpress {

struct QuantizationMethod {
  std::string_view name;  // "quant_method"
  void (*read)(const nlohmann::json& object, QuantizationConfig& config,
               const std::string& where);
};

// MLX's: the object "quantization" of config.json, which mlx-lm repeats as a
// quantization_config without quant_method. False if it is not there.
bool read_mlx_quantization(const nlohmann::json& root,
                           QuantizationConfig& config,
                           const std::string& where);

// All but compressed-tensors.
std::span<const QuantizationMethod> foreign_quantization_methods();

}  // namespace llmpress
