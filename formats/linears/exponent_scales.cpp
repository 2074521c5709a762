#include "formats/linears/exponent_scales.h"

#include <cmath>

#include "compress/core/float_formats.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {

std::vector<float> read_exponents(const TensorReader& reader,
                                  const TensorInfo& info) {
  if (info.dtype == DType::kF8E8M0) return floats_of(reader, info);
  std::vector<float> scales;
  for (const std::uint8_t e :
       elements_of<std::uint8_t>(reader, info, DType::kU8)) {
    scales.push_back(e8m0_to_float(e));
  }
  return scales;
}

std::optional<std::vector<std::uint8_t>> exponents_of(
    std::span<const float> scales) {
  std::vector<std::uint8_t> exponents;
  exponents.reserve(scales.size());
  for (const float s : scales) {
    if (!(s > 0) || !std::isfinite(s)) return std::nullopt;
    int exponent = 0;
    const bool power =
        std::frexp(s, &exponent) == 0.5f;  // s = 2^(exponent - 1)
    const int biased = exponent - 1 + 127;
    if (!power || biased < 0) return std::nullopt;
    exponents.push_back(static_cast<std::uint8_t>(biased));
  }
  return exponents;
}

}  // namespace llmpress
