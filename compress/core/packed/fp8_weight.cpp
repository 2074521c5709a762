#include "compress/core/packed/fp8_weight.h"

#include <algorithm>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/packed/packed_checker.h"

namespace llmpress {

void decode_row(const Fp8Weight& w, std::size_t o, std::span<float> row) {
  decode_floats(w.format,
                std::as_bytes(std::span(w.codes).subspan(o * w.in, w.in)), row);
  const std::size_t blocks = ceil_div(w.in, w.block_cols);
  for (std::size_t b = 0; b < blocks; ++b) {
    const float scale = w.scales[o / w.block_rows * blocks + b];
    const std::size_t begin = b * w.block_cols;
    const std::size_t end = begin + std::min(w.block_cols, w.in - begin);
    for (std::size_t i = begin; i < end; ++i) row[i] *= scale;
  }
}

std::size_t stored_bytes(const Fp8Weight& w) {
  return w.codes.size() + bytes_of(w.scale_dtype, w.scales.size());
}

std::string describe(const Fp8Weight& w) {
  const std::string name =
      w.format == DType::kF8E4M3 ? "fp8_e4m3 " : "fp8_e5m2 ";
  if (w.block_cols >= w.in && w.block_rows >= w.out) return name + "tensor";
  if (w.block_cols >= w.in && w.block_rows == 1) return name + "channel";
  return formatted("{}{}x{}", name, w.block_rows, w.block_cols);
}

void check(const Fp8Weight& w, const PackedChecker& c) {
  c.require(w.format == DType::kF8E4M3 || w.format == DType::kF8E5M2, [&] {
    return formatted("codes of type {}, wanted F8_E4M3 or F8_E5M2",
                     facts(w.format).name);
  });
  c.require(w.block_rows > 0 && w.block_cols > 0, "an empty scale block");
  c.size("codes", w.codes.size(), w.out * w.in);
  c.size("scales", w.scales.size(),
         ceil_div(w.out, w.block_rows) * ceil_div(w.in, w.block_cols));
  c.scales("scales", w.scales, w.scale_dtype);
}

}  // namespace llmpress
