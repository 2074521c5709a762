#include "compress/core/packed/table4_weight.h"

#include <algorithm>
#include <cmath>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/packed/packed_checker.h"
#include "compress/core/table4.h"

namespace llmpress {

float absmax_of(const Table4Weight& w, std::size_t block) {
  if (w.absmax_codes.empty()) return w.absmax[block];
  return nested_absmax_map()[w.absmax_codes[block]] *
             w.nested_absmax[block / 256] +
         w.nested_offset;
}

void decode_row(const Table4Weight& w, std::size_t o, std::span<float> row) {
  const auto table = table4_values(w.kind);
  // Blocks run over the flattened weight: a row may begin inside one.
  for (std::size_t i = 0; i < w.in;) {
    const std::size_t first = o * w.in + i;
    const std::size_t block = first / w.block_size;
    const std::size_t end =
        std::min(w.in, i + w.block_size - first % w.block_size);
    const float absmax = absmax_of(w, block);
    for (; i < end; ++i) {
      const std::size_t flat = o * w.in + i;
      const std::uint8_t octet = w.codes[flat / 2];
      row[i] = table[flat % 2 == 0 ? octet >> 4 : octet & 15] * absmax;
    }
  }
}

std::size_t stored_bytes(const Table4Weight& w) {
  const bool nested = !w.absmax_codes.empty();
  return w.codes.size() + w.absmax.size() * sizeof(float) +
         w.absmax_codes.size() + w.nested_absmax.size() * sizeof(float) +
         (nested ? sizeof(float) : 0);
}

std::string describe(const Table4Weight& w) {
  return formatted("{} b{}{}", w.kind == Table4Kind::kNf4 ? "nf4" : "fp4",
                   w.block_size, w.absmax_codes.empty() ? "" : " dq");
}

void check(const Table4Weight& w, const PackedChecker& c) {
  c.require(w.block_size > 0, "an empty block");
  const std::size_t blocks = ceil_div(w.out * w.in, w.block_size);
  const bool nested = !w.absmax_codes.empty();
  c.size("codes", w.codes.size(), ceil_div(w.out * w.in, 2));
  c.size("absmax", w.absmax.size(), nested ? 0 : blocks);
  c.size("absmax_codes", w.absmax_codes.size(), nested ? blocks : 0);
  c.size("nested_absmax", w.nested_absmax.size(),
         nested ? ceil_div(blocks, 256) : 0);
  c.scales("absmax", w.absmax, DType::kF32);
  c.scales("nested_absmax", w.nested_absmax, DType::kF32);
  c.require(std::isfinite(w.nested_offset), "nested_offset is not finite");
}

}  // namespace llmpress
