// The weight of one Linear as it is stored: a closed set of packed types, each
// a plain struct W [out, in] with y = W x. Codes that a solver chose are kept
// as they are, never derived again from floats. Scales are floats that are
// exactly representable in `scale_dtype`, the type they are written in.
//
// A new packed type costs: its file pair in packed/ (struct, decode_row,
// stored_bytes, describe, check, scales), its line in PackedWeight here, its
// panels (compress/kernels/panel_weight.cpp) and its serializers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/matrix.h"
#include "compress/core/packed/dense_weight.h"
#include "compress/core/packed/fp8_weight.h"
#include "compress/core/packed/ggml_weight.h"
#include "compress/core/packed/grouped_int_weight.h"
#include "compress/core/packed/int8_weight.h"
#include "compress/core/packed/micro_fp4_weight.h"
#include "compress/core/packed/sparse_weight.h"
#include "compress/core/packed/table4_weight.h"
#include "compress/core/parallel.h"

namespace llmpress {

using PackedWeight =
    std::variant<DenseWeight, GroupedIntWeight, Int8Weight, Fp8Weight,
                 Table4Weight, MicroFp4Weight, SparseWeight, GgmlWeight>;

// How a Linear's input is rounded before the product. The grid is found at run
// time (dynamic), for each token or each group of its values, or was fixed by
// calibration (static).
struct ActivationQuant {
  enum class Kind { kNone, kInt, kFp8 };
  enum class Range { kToken, kGroup, kTensor, kStatic };  // kTensor: one a call
  Kind kind = Kind::kNone;
  int bits = 8;  // 4 or 8, for kInt
  Range range = Range::kToken;
  // kGroup: inputs side by side that share a scale; the last may be fewer.
  std::size_t group_size = 0;
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
MatrixF dequantize(const PackedWeight& weight, ThreadPool& pool);
void dequantize_rows(const PackedWeight& weight, std::size_t begin_row,
                     MatrixView<float> rows);

// Bytes of the stored form: codes, scales in scale_dtype, bit-packed zeros,
// indices; without file headers. GroupedInt zeros count `bits` bits each.
std::size_t stored_bytes(const PackedWeight& weight);
double bits_per_weight(const PackedWeight& weight);  // 8 * bytes / (out * in)

// Short name for reports: "bf16", "int4 g32 asym", "int8 channel",
// "fp8_e4m3 channel", "nf4 b64 dq", "mxfp4", "2:4 f16", "q4_K".
std::string describe(const PackedWeight& weight);

// Scales as they are stored (none: empty), and the type that they are stored in
// (F32 where there is no choice).
std::span<const float> scales_of(const PackedWeight& weight);
DType scale_type_of(const PackedWeight& weight);

// Throws Error(kCorruptFile, "<name>: ...") if buffer sizes disagree with the
// shape, an index is out of range or a scale is not finite.
void check(const PackedWeight& weight, std::string_view name);

}  // namespace llmpress
