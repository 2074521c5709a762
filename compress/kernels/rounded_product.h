// Y = X W^T with X rounded to int8 for speed, block by block: see
// rounded_kernels.h. The bits of a row of Y depend on that row of X alone.
#pragma once

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/panel_weight.h"

namespace llmpress {

// Whether W's values are whole numbers or a table of them.
bool takes_rounded_inputs(const PanelWeight& W);

// X [tokens, in], Y [tokens, out]. `isa` is not kScalar. Throws Error(kNumeric)
// if a value of X is not finite.
void multiply_panels_rounded(const PanelWeight& W, ConstMatrixView X,
                             MatrixView<float> Y, ThreadPool& pool, Isa isa);

}  // namespace llmpress
