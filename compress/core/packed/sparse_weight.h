// Zeros left out. Row o's kept values, in column order, are
// values[row_offsets[o] .. row_offsets[o + 1]); bit c % 8 of
// mask[o * ceil(in/8) + c/8] says whether column c is kept. With k2of4 exactly
// two of every aligned four columns are kept, so row_offsets[o] = o * in / 2.
// Values are numbers of `dtype`, or codes of `bits` with the affine groups of
// GroupedIntWeight counted over logical columns (group = column / group_size).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/matrix.h"
#include "compress/core/packed/grouped_int_weight.h"

namespace llmpress {

class PackedChecker;

enum class SparsePattern { kBitmask, k2of4 };
struct SparseWeight {
  std::size_t out = 0, in = 0;
  SparsePattern pattern = SparsePattern::kBitmask;
  std::vector<std::uint8_t> mask{};          // [out, ceil(in/8)]
  std::vector<std::uint64_t> row_offsets{};  // [out + 1]
  // Dense values (bits == 0):
  DType dtype = DType::kF32;
  std::vector<std::byte> data{};  // [kept] elements of dtype
  // Quantized values (bits 4 or 8):
  int bits = 0;
  std::size_t group_size = 0;
  DType scale_dtype = DType::kF32;
  std::vector<std::uint8_t> codes{};  // [kept], one code an octet
  std::vector<float> scales{};        // [out, ceil(in/group_size)]
  std::vector<std::uint8_t> zeros{};  // [out, groups]; empty: 2^(bits-1)
};

// Facts that packed_weight.h asks of every type.
void decode_row(const SparseWeight& w, std::size_t o, std::span<float> row);
std::size_t stored_bytes(const SparseWeight& w);
std::string describe(const SparseWeight& w);
void check(const SparseWeight& w, const PackedChecker& c);
inline std::span<const float> scales_of(const SparseWeight&) { return {}; }
inline DType scale_type_of(const SparseWeight&) { return DType::kF32; }

// W [out, in] with the zeros left out: values rounded to `dtype`. A 2of4 mask
// must keep exactly two of every four columns; zeros beyond that are kept.
// Throws Error(kInvalidArgument) if a group of four has more than two
// non-zeros.
SparseWeight make_sparse(ConstMatrixView W, SparsePattern pattern, DType dtype);
// The same mask over the codes of a quantized weight.
SparseWeight make_sparse(const GroupedIntWeight& weight, SparsePattern pattern);

}  // namespace llmpress
