// Micro-scaled FP4 (E2M1) along the input: MXFP4 has a group of 32 with an E8M0
// scale, NVFP4 a group of 16 with an E4M3 scale and one global scale:
//   MXFP4  W = e2m1(q) * 2^(scale - 127)
//   NVFP4  W = e2m1(q) * e4m3(scale) / global_scale
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/core/dtype.h"

namespace llmpress {

class PackedChecker;

enum class MicroFp4Kind { kMxfp4, kNvfp4 };
struct MicroFp4Weight {
  std::size_t out = 0, in = 0;
  MicroFp4Kind kind = MicroFp4Kind::kMxfp4;
  std::vector<std::uint8_t>
      codes{};  // [out, ceil(in/2)], even column low nibble
  std::vector<std::uint8_t> scales{};  // [out, ceil(in/group())]
  float global_scale = 1;              // NVFP4 only

  std::size_t group() const { return kind == MicroFp4Kind::kMxfp4 ? 32 : 16; }
};

// Facts that packed_weight.h asks of every type.
void decode_row(const MicroFp4Weight& w, std::size_t o, std::span<float> row);
std::size_t stored_bytes(const MicroFp4Weight& w);
std::string describe(const MicroFp4Weight& w);
void check(const MicroFp4Weight& w, const PackedChecker& c);
inline std::span<const float> scales_of(const MicroFp4Weight&) { return {}; }
inline DType scale_type_of(const MicroFp4Weight&) { return DType::kF32; }

}  // namespace llmpress
