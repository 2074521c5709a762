// The k largest logits of each row of a teacher, and what the rest weighs: what
// top_k_divergence_loss() needs of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "distill/losses/top_k_divergence.h"

namespace llmpress {

struct TopKRows {
  Matrix<std::uint32_t> ids{};    // [rows, k], falling values, lower ids first
  MatrixF values{};               // [rows, k], logits
  std::vector<float> log_rest{};  // [rows]: log of the sum of exp(t / T) of all
                                  // others; minus infinity where k is all

  TopKTeacher view() const {
    return {.ids = ids.view(),
            .values = values.view(),
            .form = TopKValues::kLogits,
            .log_rest = log_rest};
  }
};

// Of T [rows, vocabulary]; k at most the vocabulary. Throws Error(kNumeric) for
// a logit that is not a number or plus infinity.
TopKRows select_top_k(ConstMatrixView T, std::size_t k, float temperature,
                      ThreadPool& pool);

}  // namespace llmpress
