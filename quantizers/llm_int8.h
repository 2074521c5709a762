// LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339: weights and activations
// of 8 bits over +-127 with products of their scales, and the few input
// features that carry outliers kept in 16 bits.
//
//   absmax     s = max|W| / 127,           q = round(W / s)                (2)
//   zeropoint  s = (max - min) / 254, z = round(-127 - min / s), q = round(W /
//   s) + z
//
// A scale a row of W and a token of X is the paper's vector-wise quantization,
// one for all of W its row-wise (the rows of X), one for each absmax or
// zeropoint. Outliers: features with any |x| >= threshold, found in each call
// (kBatch; W stays int8 and its columns are decoded, as bitsandbytes does) or
// in calibration (kCalibrated; their columns of W are kept in f16 and take no
// part in the scales, section 3.2). Cost: one pass.
#pragma once

#include <span>
#include <string_view>

#include "quantizers/method.h"

namespace llmpress {

// W [out, in] as int8. `outlier_columns` ascending, < in.
Int8Weight quantize_int8(ConstMatrixView W, const WeightScheme& scheme,
                         std::span<const std::uint32_t> outlier_columns,
                         ThreadPool& pool);

// Throws Error(kInvalidArgument) unless the weights are 8-bit integers with one
// scale a row (group_size -1) or in all (0).
QuantizeResult quantize_llm_int8(const QuantizeRequest& request);

QuantizerMethod llm_int8_method();

// The int8 rows of the paper's Table 1, in its order. A row is run as method
// "llm_int8" with these settings.
struct LlmInt8Row {
  std::string_view name;         // "absmax row-wise + decomposition"
  std::int64_t group_size;       // of W: -1 or 0
  bool symmetric;                // W and X
  ActivationQuant::Range range;  // of X
  bool decomposition;
};
std::span<const LlmInt8Row> llm_int8_rows();
// Throws Error(kInvalidArgument) naming the rows there are.
const LlmInt8Row& find_llm_int8_row(std::string_view name);
QuantizeConfig llm_int8_config(const LlmInt8Row& row, double threshold = 6.0);

}  // namespace llmpress
