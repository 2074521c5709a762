// Wanda, pruning by weights and activations (arXiv:2306.11695, Eq. 1):
//
//   score_oi = |W_oi| * ||x_i||_2 = |W_oi| * sqrt(tokens * E[x_i^2])
//
// The lowest int(in * sparsity) of every output row go, or all but `keep` of
// every `of` in a row. Kept weights stay as they are.
//
// The variant (wanda_variant; section 4 of the authors' code) removes from each
// row the largest set of lowest scores that sums to at most alpha of the row's
// sum, with one alpha for the Linear found by bisection, so that rows whose
// scores are concentrated lose more weights than others.
//
// Cost: a selection in every row.
#pragma once

#include "pruning/method.h"

namespace llmpress {

// stats->square_mean [in] must be there.
PruneResult prune_wanda(const PruneRequest& request);

}  // namespace llmpress
