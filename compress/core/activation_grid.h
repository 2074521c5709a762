// The grid on which the inputs of a Linear are rounded: one definition for the
// kernels, for calibration and for keys and values.
//
//   int, symmetric  s = 2 max|x| / (2^bits - 1), z = 0     (max / 127.5, / 7.5)
//   int, zero       s = (max - min) / (2^bits - 1),
//                   z = round(-2^(bits-1) - min / s)
//   fp8 (E4M3)      s = max|x| / 448, z = 0
//   x' = s (round(clamp(x / s + z, -2^(bits-1), 2^(bits-1) - 1)) - z)
//
// with 0 in [min, max] and round half to even: calculate_qparams and
// quantize of compressed-tensors, in float32, division by division, because the
// extreme value of a row lies on a tie (-127.5, -7.5) of the symmetric grid.
// LLM.int8() (outlier_threshold > 0) has s = max|x| / 127, as bitsandbytes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "compress/core/float_bits.h"
#include "compress/core/packed_weight.h"

namespace llmpress {

struct ActivationGrid {
  float scale = 1;
  float zero = 0;  // a whole number
  bool floating = false;
  float lowest = -128, highest = 127;  // codes

  // The code of x, as a float; not for fp8.
  float code(float x) const {
    return nearest(std::clamp(x / scale + zero, lowest, highest));
  }
  float round(float x) const {
    if (!floating) return scale * (code(x) - zero);
    return scale *
           float_bits::e4m3_to_float(float_bits::e4m3_from_float(x / scale));
  }

 private:
  // Half to even, |x| < 2^22: the adder does it.
  static float nearest(float x) {
    constexpr float kMagic = 0x1.8p23f;
    return (x + kMagic) - kMagic;
  }
};

// For values in [min, max]; 0 is taken into the range. quant.kind is kInt or
// kFp8. A range of 0 has the smallest normal scale.
ActivationGrid fit_activation_grid(const ActivationQuant& quant, float min,
                                   float max);
// Short name for reports: "int8 token", "int4 static asym", "fp8 g128"; empty:
// inputs are as they are.
std::string describe_rounding(const ActivationQuant& quant);

ActivationGrid static_activation_grid(const ActivationQuant& quant, float scale,
                                      std::int32_t zero);

}  // namespace llmpress
