// Affine integer grids, the common ground of round-to-nearest, GPTQ, AWQ:
//
//   w' = s (q - z),   q = clamp(round(w / s) + z, 0, 2^bits - 1)
//
// The range of a group always contains 0. Symmetric: s = 2 max|w| / (2^bits -
// 1) and z = 2^(bits-1); else s = (max - min) / (2^bits - 1) and z = round(-min
// / s) (Quantizer of the GPTQ authors, arXiv:2210.17323). RangeSearch::kMse
// shrinks the range by p = 1 - i/100, i = 0..79, and keeps the p of the
// smallest sum |w' - w|^mse_norm. Rounding is half to even.
//
// A scale is rounded to the type it is stored in before anything is derived
// from it: zero and codes are fitted to the scale that a reader will find. A
// group of zeros gets the range [-1, 1]. A scale that f16 cannot hold is the
// largest f16, one below its normal range is rounded up to a subnormal, never
// to 0 or infinity.
//
// Cost: one pass over the group; with kMse 80, of squares where mse_norm is above 2,
// and one of powers for each range that those leave.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

struct IntGrid {
  float scale = 1;
  std::uint8_t zero = 0;
};

// Grids of all groups of a weight, as GroupedIntWeight stores them.
struct IntGrids {
  std::size_t group_size = 0;    // resolved: 1..in
  MatrixF scales{};              // [out, groups]
  Matrix<std::uint8_t> zeros{};  // [out, groups], symmetric ones too
};

// Throws Error(kInvalidArgument) if bits, group_size, mse_norm or scale_dtype
// cannot be used.
void check_int_scheme(const WeightScheme& scheme);

// Throws Error(kInvalidInput, "<name>: ...") if W is empty, or a weight is NaN
// or above 1e38 (so that no range overflows). `first_row`: where W begins in the
// weight of that name.
void check_weights(ConstMatrixView W, std::string_view name,
                   std::size_t first_row = 0);

// Inputs that share a grid: scheme.group_size, where -1 and 0 mean `in`.
std::size_t resolved_group_size(const WeightScheme& scheme, std::size_t in);

// `scale` > 0 as it will be stored in `dtype` (f32, f16 or bf16), itself > 0.
float stored_scale(float scale, DType dtype);

// `importance`, if given, weights the searched error of each element.
IntGrid fit_int_grid(std::span<const float> weights, const WeightScheme& scheme,
                     std::span<const float> importance = {});

// One grid for each row and group of W [out, in], or one for all of W
// (group_size 0). `importance` [in] or empty.
IntGrids fit_int_grids(ConstMatrixView W, const WeightScheme& scheme,
                       ThreadPool& pool,
                       std::span<const float> importance = {});

// The codes of `weights` on `grid`.
void encode_int(std::span<const float> weights, const IntGrid& grid, int bits,
                std::span<std::uint8_t> codes);

// W rounded to `grids`: codes [out, in].
Matrix<std::uint8_t> encode_int(ConstMatrixView W, const IntGrids& grids,
                                int bits, ThreadPool& pool);

// The same, packed. `grids` of W (fit_int_grids()).
GroupedIntWeight round_to_grids(ConstMatrixView W, const IntGrids& grids,
                                const WeightScheme& scheme, ThreadPool& pool);

// Packs what a solver chose. `g_idx` [in] or empty.
GroupedIntWeight pack_grouped_int(MatrixView<const std::uint8_t> codes,
                                  const IntGrids& grids,
                                  const WeightScheme& scheme,
                                  std::vector<std::uint32_t> g_idx = {});

// The same weight as signed octets with one scale a row: 8 bits and one group
// only (assert).
Int8Weight to_int8(const GroupedIntWeight& weight);

// Sentences about scales that could not be stored as they were fitted.
std::vector<std::string> scale_notes(std::span<const float> scales,
                                     DType scale_dtype);

}  // namespace llmpress
