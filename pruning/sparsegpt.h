// SparseGPT (arXiv:2301.00774, Algorithm 1): chooses a mask and lets the kept
// weights to the right make up for what goes, with the second moment of the
// input. H = 2 S + damping, H^-1 = U^T U upper triangular; before each block of
// `block_size` columns, of all its weights those with the lowest
//
//   w^2 / U_ii^2      (the error that removing w costs, Eq. 3)
//
// are masked: one threshold for all rows of the block, so that rows and columns
// share the sparsity as they can bear it. With a pattern, all but `keep` of
// every `of` are, chosen when the first of them is reached. The column solver
// then zeroes column by column and updates the rest.
//
// Joint sparsification and quantization (section 3.5): `then` rounds what is
// kept in the same pass, and its errors are paid for as well. It sees each
// column with the masked weights already zero and must leave zero as zero.
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
