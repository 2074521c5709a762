// Affine integers of 2..8 bits in groups of consecutive inputs:
//   W[o, i] = s[o, g(i)] * (q[o, i] - z[o, g(i)]),  g(i) = g_idx[i] or i /
//   group_size
// q unsigned. Symmetric means z = 2^(bits-1), not stored. `float_zeros` (HQQ)
// replaces z by a real number. The last group of a row may be short.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/matrix.h"

namespace llmpress {

class PackedChecker;

struct GroupedIntWeight {
  std::size_t out = 0, in = 0;
  int bits = 4;
  std::size_t group_size = 0;  // 1..in; in: one group a row ("channel")
  bool symmetric = false;
  DType scale_dtype = DType::kF32;
  std::vector<std::uint32_t> codes{};  // [out, words_per_row()], bit_packing.h
  std::vector<float> scales{};         // [out, groups()], may be negative
  std::vector<std::uint8_t> zeros{};   // [out, groups()]; empty if symmetric
  std::vector<float> float_zeros{};    // [out, groups()]; empty but for HQQ
  std::vector<std::uint32_t> g_idx{};  // [in]; empty: i / group_size

  std::size_t groups() const;
  std::size_t words_per_row() const;
};

// Facts that packed_weight.h asks of every type.
void decode_row(const GroupedIntWeight& w, std::size_t o, std::span<float> row);
std::size_t stored_bytes(const GroupedIntWeight& w);
std::string describe(const GroupedIntWeight& w);
void check(const GroupedIntWeight& w, const PackedChecker& c);
inline std::span<const float> scales_of(const GroupedIntWeight& w) {
  return w.scales;
}
inline DType scale_type_of(const GroupedIntWeight& w) { return w.scale_dtype; }

// Packs `codes` [out, in] (one octet each) into rows of words.
std::vector<std::uint32_t> pack_rows(MatrixView<const std::uint8_t> codes,
                                     int bits);
// Inverse of pack_rows for the whole weight: [out, in].
Matrix<std::uint8_t> unpack_rows(const GroupedIntWeight& weight);

// Of affine groups, sparse or not: "int4 g32", and the bytes of zeros packed
// along `out`, `bits` each, in whole 32-bit words.
std::string describe_groups(int bits, std::size_t group_size, std::size_t in);
std::size_t packed_zero_bytes(std::size_t out, std::size_t groups, int bits);

}  // namespace llmpress
