// FP8 with multiplying scales over blocks of block_rows x block_cols
// (tensor: out x in; channel: 1 x in; DeepSeek: 128 x 128).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/core/dtype.h"

namespace llmpress {

class PackedChecker;

struct Fp8Weight {
  std::size_t out = 0, in = 0;
  DType format = DType::kF8E4M3;  // or kF8E5M2
  std::size_t block_rows = 0, block_cols = 0;
  DType scale_dtype = DType::kF32;
  std::vector<std::uint8_t> codes{};  // [out, in]
  std::vector<float> scales{};  // [ceil(out/block_rows), ceil(in/block_cols)]
};

// Facts that packed_weight.h asks of every type.
void decode_row(const Fp8Weight& w, std::size_t o, std::span<float> row);
std::size_t stored_bytes(const Fp8Weight& w);
std::string describe(const Fp8Weight& w);
void check(const Fp8Weight& w, const PackedChecker& c);
inline std::span<const float> scales_of(const Fp8Weight& w) { return w.scales; }
inline DType scale_type_of(const Fp8Weight& w) { return w.scale_dtype; }

}  // namespace llmpress
