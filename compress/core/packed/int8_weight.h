// One octet an element with scales per output row or for the whole tensor.
//   W[o, i] = s[o] * (q[o, i] - z[o])           for i not an outlier column
//   W[o, outlier_columns[k]] = outlier_values[o, k]
// The q of outlier columns are 0 (LLM.int8(), arXiv:2208.07339, section 3.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/core/dtype.h"

namespace llmpress {

class PackedChecker;

struct Int8Weight {
  std::size_t out = 0, in = 0;
  DType scale_dtype = DType::kF32;
  std::vector<std::int8_t> codes{};   // [out, in]
  std::vector<float> scales{};        // [out], or [1] for the whole tensor
  std::vector<std::int32_t> zeros{};  // same shape as scales; empty: symmetric
  std::vector<std::uint32_t> outlier_columns{};  // ascending, < in
  std::vector<std::uint16_t> outlier_values{};   // [out, columns], f16
};

// Facts that packed_weight.h asks of every type.
void decode_row(const Int8Weight& w, std::size_t o, std::span<float> row);
std::size_t stored_bytes(const Int8Weight& w);
std::string describe(const Int8Weight& w);
void check(const Int8Weight& w, const PackedChecker& c);
inline std::span<const float> scales_of(const Int8Weight& w) {
  return w.scales;
}
inline DType scale_type_of(const Int8Weight& w) { return w.scale_dtype; }

}  // namespace llmpress
