// Self-attention relations of MiniLM (arXiv:2002.10957) and MiniLMv2
// (arXiv:2012.15828, Eq. 1 to 4): how the tokens of a sequence relate to each
// other by their queries, keys or values.
//
// X [tokens, A d] of one sequence (its queries, say) is cut into A relation
// heads X_a [tokens, d], whatever heads its attention has. With
//   R_a = softmax(X_a X_a^T / sqrt(d)), row i over j <= i (causal)
// and teacher and student of widths d_t and d_s but the same A:
//   L_i     = 1/A sum_a KL(R_a,i of the teacher || R_a,i of the student)
//   D_a,ij  = w_i / A (R_a,ij of the student - R_a,ij of the teacher)
//   dX_a   += (D_a + D_a^T) X_a / sqrt(d_s)
// The mean over rows is the caller's, by the weights w. Heads run in parallel;
// a head takes 64 rows at a time, so memory is [64, tokens] a thread.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

// Returns sum_i row_weights[i] L_i and adds its gradient to dStudent. student
// and dStudent [tokens, heads * d_s], teacher [tokens, heads * d_t],
// row_weights [tokens]. A row of weight 0 has no loss of its own, but is still
// what later rows relate to; rows after the last weight that is not 0 may hold
// anything. Throws Error(kInvalidArgument) where `heads` does not divide both
// widths.
double relation_loss(ConstMatrixView student, ConstMatrixView teacher,
                     std::size_t heads, std::span<const float> row_weights,
                     MatrixView<float> dStudent, ThreadPool& pool,
                     Isa isa = best_isa());

}  // namespace llmpress
