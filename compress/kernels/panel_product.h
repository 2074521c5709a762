// Y = X W^T for a weight in panels: prepares the inputs, spreads panels and
// token tiles over the threads and puts the results in place. The bits of a row
// of Y depend on that row of X alone.
#pragma once

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/activation_rounding.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/panel_weight.h"

namespace llmpress {

// X [tokens, in], Y [tokens, out]. `isa` is not kScalar.
void multiply_panels(const PanelWeight& W, ConstMatrixView X,
                     MatrixView<float> Y, ThreadPool& pool, Isa isa);

// Whether integer codes of activations can be multiplied with W's codes.
bool has_integer_codes(const PackedWeight& weight);

// sum over each int block of (code - zero), [panels, int_blocks, 16]: needed
// where activations have zeros.
std::vector<std::int32_t> block_code_sums(const PanelWeight& W);

// The product with rounded activations, X.exact_columns left out:
//   Y[t, o] = X.scales[t] * sum_b s[o, g(b)] * float(sum over block b of
//             (X.codes - X.zeros[t]) * (code - zero))
// by b ascending with fused multiply-adds; the inner sums are exact integers.
void multiply_panels_int(const PanelWeight& W, const IntActivations& X,
                         std::span<const std::int32_t> code_sums,
                         MatrixView<float> Y, ThreadPool& pool, Isa isa);

}  // namespace llmpress
