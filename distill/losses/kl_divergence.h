// Divergences between a teacher's and a student's next token.
//
// With p = softmax(t / T) of the teacher, q = softmax(z / T) of the student and
// m = beta p + (1 - beta) q, per row:
//   forward   L = T^2 KL(p || q)      dL/dz = T (q - p)
//   reverse   L = T^2 KL(q || p)      dL/dz = T q (log(q / p) - KL(q || p))
//   Jensen-Shannon
//             L = T^2 (beta KL(p || m) + (1 - beta) KL(q || m))
//                        dL/dz = T (1 - beta) q (log(q / m) - KL(q || m))
// Forward: Hinton et al., arXiv:1503.02531, whose T^2 keeps the gradient's size
// from depending on T (ModelOpt's LogitsDistillationLoss with batchmean).
// Reverse: MiniLLM, arXiv:2306.08543. Jensen-Shannon: GKD, arXiv:2306.13649,
// Eq. 1: L / beta tends to forward for beta -> 0 and L / (1 - beta) to reverse
// for beta -> 1, so beta 0 and 1 themselves are taken as forward and reverse
// (as TRL does). Differs from TRL: T^2 is applied to all three.
#pragma once

#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

enum class DivergenceKind { kForward, kReverse, kJensenShannon };

struct DivergenceConfig {
  DivergenceKind kind = DivergenceKind::kForward;
  float temperature = 1;  // T > 0
  float beta = 0.5f;      // in [0, 1]; of kJensenShannon
};

// Returns sum_r row_weights[r] L_r and adds row_weights[r] dL_r/dZ to G. Z,
// teacher (logits) and G [rows, vocabulary], row_weights [rows]; rows of weight
// 0 are left out. Where a teacher's logit is minus infinity, reverse is
// infinite, as it should be. Throws Error(kInvalidArgument) for a T or beta
// out of range.
double divergence_loss(ConstMatrixView Z, ConstMatrixView teacher,
                       std::span<const float> row_weights,
                       const DivergenceConfig& config, MatrixView<float> G,
                       ThreadPool& pool, Isa isa = best_isa());

}  // namespace llmpress
