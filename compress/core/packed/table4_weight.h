// 4-bit table codes over blocks of the flattened row-major weight (QLoRA,
// arXiv:2305.14314): W = table[code] * absmax[block]. With double quantization
//   absmax[b] = nested_map[absmax_codes[b]] * nested_absmax[b / 256] +
//   nested_offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/core/dtype.h"

namespace llmpress {

class PackedChecker;

enum class Table4Kind { kNf4, kFp4 };
struct Table4Weight {
  std::size_t out = 0, in = 0;
  Table4Kind kind = Table4Kind::kNf4;
  std::size_t block_size = 64;
  std::vector<std::uint8_t>
      codes{};                  // ceil(out * in / 2), first in high nibble
  std::vector<float> absmax{};  // [blocks]; empty when nested
  std::vector<std::uint8_t> absmax_codes{};  // [blocks]; empty unless nested
  std::vector<float> nested_absmax{};        // [ceil(blocks / 256)]
  float nested_offset = 0;
};

// Facts that packed_weight.h asks of every type.
void decode_row(const Table4Weight& w, std::size_t o, std::span<float> row);
std::size_t stored_bytes(const Table4Weight& w);
std::string describe(const Table4Weight& w);
void check(const Table4Weight& w, const PackedChecker& c);
inline std::span<const float> scales_of(const Table4Weight& w) {
  return w.absmax;
}
inline DType scale_type_of(const Table4Weight&) { return DType::kF32; }

// Largest magnitude of a block, nested or not.
float absmax_of(const Table4Weight& w, std::size_t block);

}  // namespace llmpress
