// The plain version of every linear kernel: what the fast ones are compared
// with, and what runs where there is none. Sums run in double, except where
// integers are multiplied: there it gives the very bits of the fast kernels.
#pragma once

#include <memory>

#include "compress/core/packed_weight.h"
#include "compress/kernels/activation_rounding.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/linear_kernel.h"

namespace llmpress {

// Y = X W^T in double, W decoded a row at a time.
void multiply_reference(const PackedWeight& weight, ConstMatrixView X,
                        MatrixView<float> Y, ThreadPool& pool);

// The formula of multiply_panels_int (panel_product.h), one number at a time.
void multiply_reference_int(const PackedWeight& weight, const IntActivations& X,
                            MatrixView<float> Y, ThreadPool& pool);

}  // namespace llmpress
