// A Linear whose rows are on several ranks: each multiplies its own, and all get
// the whole of Y. A row's numbers are those that one process finds, so nothing
// depends on how many ranks there are (unlike a split of columns, whose sums do).
#pragma once

#include <memory>

#include "compress/core/ranks.h"
#include "compress/kernels/linear_kernel.h"
#include "formats/linears/linear_part.h"

namespace llmpress {

// Of one process: make_linear_kernel(). A Linear of few rows, or one whose
// scales do not let it be cut, is whole on every rank. Its run() is collective,
// in the thread that made `ranks`.
std::unique_ptr<LinearKernel> make_spread_linear(const LinearWeights& linear,
                                                 Isa isa, InputPrecision inputs,
                                                 const Ranks& ranks);
// The same of the rows that choice_of(ranks) picked.
std::unique_ptr<LinearKernel> make_spread_linear(LinearPart part, Isa isa,
                                                 InputPrecision inputs,
                                                 const Ranks& ranks);
RowChoice choice_of(const Ranks& ranks);

}  // namespace llmpress
