#include "compress/core/packed/micro_fp4_weight.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/packed/packed_checker.h"

namespace llmpress {

void decode_row(const MicroFp4Weight& w, std::size_t o, std::span<float> row) {
  const std::size_t groups = ceil_div(w.in, w.group());
  const auto octets =
      std::span(w.codes).subspan(o * ceil_div(w.in, 2), ceil_div(w.in, 2));
  for (std::size_t g = 0; g < groups; ++g) {
    const std::uint8_t code = w.scales[o * groups + g];
    const float scale = w.kind == MicroFp4Kind::kMxfp4
                            ? e8m0_to_float(code)
                            : e4m3_to_float(code) / w.global_scale;
    std::array<float, 16> values{};
    for (std::uint8_t c = 0; c < 16; ++c) values[c] = e2m1_to_float(c) * scale;
    const std::size_t begin = g * w.group();
    const std::size_t end = std::min(w.in, begin + w.group());
    for (std::size_t i = begin; i < end; ++i) {
      const unsigned octet = octets[i / 2];
      row[i] = values[i % 2 == 0 ? octet & 15u : octet >> 4];
    }
  }
}

std::size_t stored_bytes(const MicroFp4Weight& w) {
  return w.codes.size() + w.scales.size() +
         (w.kind == MicroFp4Kind::kNvfp4 ? sizeof(float) : 0);
}

std::string describe(const MicroFp4Weight& w) {
  return w.kind == MicroFp4Kind::kMxfp4 ? "mxfp4" : "nvfp4";
}

void check(const MicroFp4Weight& w, const PackedChecker& c) {
  c.size("codes", w.codes.size(), c.mul(w.out, ceil_div(w.in, 2)));
  c.size("scales", w.scales.size(), c.mul(w.out, ceil_div(w.in, w.group())));
  for (std::size_t k = 0; k < w.scales.size(); ++k) {
    const float scale = w.kind == MicroFp4Kind::kMxfp4
                            ? e8m0_to_float(w.scales[k])
                            : e4m3_to_float(w.scales[k]);
    if (std::isfinite(scale)) continue;
    c.refuse(formatted("scales[{}] is NaN", k));
  }
  c.require(std::isfinite(w.global_scale) && w.global_scale > 0, [&] {
    return formatted("global_scale is {:g}, wanted positive and finite",
                     w.global_scale);
  });
}

}  // namespace llmpress
