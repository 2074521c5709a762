// KL(teacher || student) where of each row of the teacher only the k most
// probable tokens are known, so that teachers can be stored.
//
// With K the k tokens, q = softmax(z / T) over the whole vocabulary and p the
// teacher's probabilities:
//   tail          the rest of the vocabulary is one more event:
//                 L = T^2 (sum_K p_i log(p_i / q_i) + p_r log(p_r / q_r)),
//                 p_r = 1 - sum_K p_i, q_r = 1 - sum_K q_i
//                 dL/dz_i = T (q_i - p_i) in K, T q_i (1 - p_r / q_r) elsewhere
//   renormalised  p and q are taken over K alone:
//                 L = T^2 KL(softmax_K(t / T) || softmax_K(z / T)),
//                 dL/dz_i = T (q_i - p_i) in K, 0 elsewhere: only k columns of
//                 a row are touched
// A coarser view of two distributions cannot be further apart, so `tail` is at
// most the whole KL, and equals it for k = vocabulary. The whole
// divergence: arXiv:1503.02531.
#pragma once

#include <cstdint>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

enum class TopKValues {
  kLogProbabilities,  // log softmax(t / T) over the whole vocabulary
  kLogits,            // t
};

struct TopKTeacher {
  MatrixView<const std::uint32_t> ids;  // [rows, k], no id twice in a row
  ConstMatrixView values;  // [rows, k]; minus infinity: probability 0
  TopKValues form = TopKValues::kLogProbabilities;
  // [rows]: log of the sum of exp(t_i / T) over the others; of kLogits, where
  // the rest is a tail.
  std::span<const float> log_rest{};
};

enum class TopKRest { kTail, kRenormalised };

struct TopKConfig {
  TopKRest rest = TopKRest::kTail;
  float temperature = 1;  // T > 0
};

// Returns sum_r row_weights[r] L_r and adds row_weights[r] dL_r/dZ to G. Z and
// G [rows, vocabulary], row_weights [rows]; rows of weight 0 are left out.
// Throws Error(kInvalidInput) for an id past the vocabulary or given twice and
// for probabilities whose sum is above 1.01, kInvalidArgument for a T out of
// range or a log_rest that is missing.
double top_k_divergence_loss(ConstMatrixView Z, const TopKTeacher& teacher,
                             std::span<const float> row_weights,
                             const TopKConfig& config, MatrixView<float> G,
                             ThreadPool& pool, Isa isa = best_isa());

}  // namespace llmpress
