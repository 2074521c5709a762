// SparseGPT (arXiv:2301.00774, Algorithm 1): chooses a mask (sparsegpt_mask.h)
// and lets the kept weights to the right make up for what goes, with the second
// moment of the input: H = 2 S + damping, in the column solver of the core.
//
// Joint sparsification and quantization (section 3.5): `then` rounds what is
// kept in the same pass, and its errors are paid for as well. It sees each
// column with the masked weights already zero and must leave zero as zero.
// Where it works in groups of columns, let config.block_size be a multiple of
// them.
//
// Cost: the factorization, in^3 / 1.5 multiply-adds, and the column solver's
// out * in * (in + block_size) / 2; memory: two [in, in] and 1.3 [out, in].
#pragma once

#include "compress/core/column_solver.h"
#include "compress/core/damping.h"
#include "pruning/method.h"

namespace llmpress {

// stats->second_moment [in, in] must be there. Throws Error(kNumeric) if it
// cannot be factored under the configured damping policy. `then` may be empty.
PruneResult prune_sparsegpt(const PruneRequest& request,
                            const ColumnCompressor& then = {});

// For callers that have the factor already (several solves of one Linear, or a
// quantizer's own): `inverse` as damped_inverse_cholesky(2 S) returns it.
PruneResult prune_sparsegpt(const PruneRequest& request,
                            const DampedInverse& inverse,
                            const ColumnCompressor& then = {});

}  // namespace llmpress
