// How a checkpoint wants keys and values rounded before attention:
// quantization_config.kv_cache_scheme of compressed-tensors, with the scales of
// each attention module.
//
//   static    k_scale and v_scale of the attention module, one or one a head;
//             older files have k_proj.output_scale and v_proj.output_scale
//   dynamic   found over the new keys or values of a sequence: strategy
//             "tensor" over all heads, "token" over each head
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compress/core/packed_weight.h"
#include "formats/containers/tensor_io.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {

struct KvScheme {
  // kind, bits and range; kToken means each head.
  ActivationQuant rounding{};
  std::vector<float> key_scales{}, value_scales{};  // static: [1] or [heads]

  std::string describe() const;  // "fp8 with static scales"
};

// Throws Error(kUnsupported) for a scheme that cannot be applied, naming its
// key.
void check_kv_scheme(const QuantArgs& args, const std::string& where);

// Of the one attention module in the block at path `block`. Throws
// Error(kInvalidInput) if its scales are missing, kCorruptFile if they are not
// positive numbers.
KvScheme read_kv_scheme(const TensorReader& reader, const std::string& block,
                        const QuantArgs& args);

}  // namespace llmpress
