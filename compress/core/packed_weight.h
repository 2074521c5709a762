// The weight of one Linear as it is stored: a closed set of packed types, each
// a plain struct W [out, in] with y = W x. Codes that a solver chose are kept
// as they are, never derived again from floats. Scales are floats that are
// exactly representable in `scale_dtype`, the type they are written in.
//
// A new packed type costs: its struct and its line in PackedWeight here, its
// row in packed_weight.cpp (dequantize, bytes, check), its kernels, its
// serializers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/matrix.h"

namespace llmpress {

// Plain numbers. data: [out, in] little-endian elements of F32, F16 or BF16.
struct DenseWeight {
  std::size_t out = 0, in = 0;
  DType dtype = DType::kF32;
  std::vector<std::byte> data{};
};

// Affine integers of 2..8 bits in groups of consecutive inputs:
//   W[o, i] = s[o, g(i)] * (q[o, i] - z[o, g(i)]),  g(i) = g_idx[i] or i /
//   group_size
// q unsigned. Symmetric means z = 2^(bits-1), not stored. `float_zeros` (HQQ)
// replaces z by a real number. The last group of a row may be short.
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

// One octet an element with scales per output row or for the whole tensor.
//   W[o, i] = s[o] * (q[o, i] - z[o])           for i not an outlier column
//   W[o, outlier_columns[k]] = outlier_values[o, k]
// The q of outlier columns are 0 (LLM.int8(), arXiv:2208.07339, section 3.2).
struct Int8Weight {
  std::size_t out = 0, in = 0;
  DType scale_dtype = DType::kF32;
  std::vector<std::int8_t> codes{};   // [out, in]
  std::vector<float> scales{};        // [out], or [1] for the whole tensor
  std::vector<std::int32_t> zeros{};  // same shape as scales; empty: symmetric
  std::vector<std::uint32_t> outlier_columns{};  // ascending, < in
  std::vector<std::uint16_t> outlier_values{};   // [out, columns], f16
};

// FP8 with multiplying scales over blocks of block_rows x block_cols
// (tensor: out x in; channel: 1 x in; DeepSeek: 128 x 128).
struct Fp8Weight {
  std::size_t out = 0, in = 0;
  DType format = DType::kF8E4M3;  // or kF8E5M2
  std::size_t block_rows = 0, block_cols = 0;
  DType scale_dtype = DType::kF32;
  std::vector<std::uint8_t> codes{};  // [out, in]
  std::vector<float> scales{};  // [ceil(out/block_rows), ceil(in/block_cols)]
};

// 4-bit table codes over blocks of the flattened row-major weight (QLoRA,
// arXiv:2305.14314): W = table[code] * absmax[block]. With double quantization
//   absmax[b] = nested_map[absmax_codes[b]] * nested_absmax[b / 256] +
//   nested_offset.
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

// Micro-scaled FP4 (E2M1) along the input: MXFP4 has a group of 32 with an E8M0
// scale, NVFP4 a group of 16 with an E4M3 scale and one global scale:
//   MXFP4  W = e2m1(q) * 2^(scale - 127)
//   NVFP4  W = e2m1(q) * e4m3(scale) / global_scale
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

// Zeros left out. Row o's kept values, in column order, are
// values[row_offsets[o] .. row_offsets[o + 1]); bit c % 8 of
// mask[o * ceil(in/8) + c/8] says whether column c is kept. With k2of4 exactly
// two of every aligned four columns are kept, so row_offsets[o] = o * in / 2.
// Values are numbers of `dtype`, or codes of `bits` with the affine groups of
// GroupedIntWeight counted over logical columns (group = column / group_size).
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

using PackedWeight =
    std::variant<DenseWeight, GroupedIntWeight, Int8Weight, Fp8Weight,
                 Table4Weight, MicroFp4Weight, SparseWeight>;

// How a Linear's input is rounded before the product. The grid is found per
// token at run time (dynamic) or was fixed by calibration (static).
struct ActivationQuant {
  enum class Kind { kNone, kInt, kFp8 };
  enum class Range { kToken, kTensor, kStatic };  // kTensor: one per call
  Kind kind = Kind::kNone;
  int bits = 8;  // 4 or 8, for kInt
  Range range = Range::kToken;
  bool symmetric = true;
  float static_scale = 0;        // kStatic
  std::int32_t static_zero = 0;  // kStatic and not symmetric
  // LLM.int8(): columns of X with any |x| >= threshold in the call stay in
  // floating point, with the dequantized columns of W. 0: off.
  float outlier_threshold = 0;

  bool operator==(const ActivationQuant&) const = default;
};

// A Linear as it is stored and run: y = W r(t(x)) + b, where t is an online
// block-diagonal normalized Hadamard rotation of the input (0: none; otherwise
// the block size, which divides `in`) and r the rounding of activations.
struct LinearWeights {
  PackedWeight weight{};
  std::vector<float> bias{};  // [out] or empty
  ActivationQuant input{};
  std::size_t input_hadamard = 0;
};

std::size_t rows_of(const PackedWeight& weight);  // out
std::size_t cols_of(const PackedWeight& weight);  // in

// W [out, in] in float32.
MatrixF dequantize(const PackedWeight& weight);
void dequantize_rows(const PackedWeight& weight, std::size_t begin_row,
                     MatrixView<float> rows);

// Bytes of the stored form: codes, scales in scale_dtype, bit-packed zeros,
// indices; without file headers. GroupedInt zeros count `bits` bits each.
std::size_t stored_bytes(const PackedWeight& weight);
double bits_per_weight(const PackedWeight& weight);  // 8 * bytes / (out * in)

// Short name for reports: "bf16", "int4 g32 asym", "int8 channel",
// "fp8_e4m3 channel", "nf4 b64 dq", "mxfp4", "2:4 f16".
std::string describe(const PackedWeight& weight);

// Throws Error(kCorruptFile, "<name>: ...") if buffer sizes disagree with the
// shape, an index is out of range or a scale is not finite.
void check(const PackedWeight& weight, std::string_view name);

DenseWeight make_dense(ConstMatrixView W, DType dtype);

// Packs `codes` [out, in] (one octet each) into rows of words.
std::vector<std::uint32_t> pack_rows(MatrixView<const std::uint8_t> codes,
                                     int bits);
// Inverse of pack_rows for the whole weight: [out, in].
Matrix<std::uint8_t> unpack_rows(const GroupedIntWeight& weight);

// W [out, in] with the zeros left out: values rounded to `dtype`. A 2of4 mask
// must keep exactly two of every four columns; zeros beyond that are kept.
// Throws Error(kInvalidArgument) if a group of four has more than two
// non-zeros.
SparseWeight make_sparse(ConstMatrixView W, SparsePattern pattern, DType dtype);
// The same mask over the codes of a quantized weight.
SparseWeight make_sparse(const GroupedIntWeight& weight, SparsePattern pattern);

}  // namespace llmpress
