// Weights rounded to the block types of GGUF, to the same octets as
// ggml_quantize_chunk() of llama.cpp (ggml-quants.c), with and without an
// importance matrix (github.com/ggml-org/llama.cpp/pull/4861): the weight of the
// error of W[o, i] is
//   importance[i] sqrt(c mean(w^2) + W[o, i]^2),    c 1 or 2 by type,
// with the mean over the row or the super-block. Types and their searches:
//   q4_0 q5_0 q8_0 mxfp4 nvfp4 tq1_0 tq2_0   the range; q4_0 and q5_0 under
//                                            importance fit_signed
//   q4_1 q5_1     the range; under importance fit_affine
//   q2_K q4_K q5_K  fit_affine a sub-block, then its scales and minima rounded
//   q3_K q6_K       fit_signed(_stepwise), then its scales rounded
//   iq4_nl iq4_xs   fit_table
//   iq1_* iq2_* iq3_*  fit_grid_block, to octets of our own (ggml_grid_rounding.h)
// Cost: 20 to 40 passes over W, q8_0 and q4_0 one.
#pragma once

#include <span>

#include "compress/core/ggml/ggml_block.h"
#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"

namespace llmpress {

// One row of whole blocks. `importance` [in] or empty.
void round_row_to_ggml(GgmlType type, std::span<const float> row,
                       std::span<const float> importance,
                       std::span<std::byte> blocks);

// W [out, in]. Throws Error(kInvalidArgument) if a row is no whole number of
// blocks, Error(kUnsupported) for a type that is not written.
GgmlWeight round_to_ggml(ConstMatrixView W, GgmlType type, ThreadPool& pool,
                         std::span<const float> importance = {});

// What llama.cpp takes where rows of `in` weights are no whole number of blocks
// of `type`: a type of blocks of 32 of at least as many bits, or f16
// (src/llama-quant.cpp, tensor_type_fallback).
GgmlType fitting_ggml_type(GgmlType type, std::size_t in);

// round_to_ggml() of that type; dense f16 where nothing else fits.
PackedWeight round_to_fitting_ggml(ConstMatrixView W, GgmlType type,
                                   ThreadPool& pool,
                                   std::span<const float> importance = {});

// The same of a stored weight, a few rows at a time: it is never in floating
// point as a whole.
PackedWeight round_to_fitting_ggml(const PackedWeight& stored, GgmlType type,
                                   ThreadPool& pool);

// Scales and minima of the block's sub-blocks by the same search, and its codes.
// `mean_square` is the mean of the row's squares, which some types look at.
GgmlBlock fit_ggml_block(GgmlType type, std::span<const float> x,
                         std::span<const float> importance, float mean_square);

}  // namespace llmpress
