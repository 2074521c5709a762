// attention() in reverse. With Z the scores, P their softmax, D_r = dO_r . O_r:
//   dV = P^T dO,  dZ = P (dO V^T - D),  dQ = scale dZ K,  dK = scale dZ^T Q
// (FlashAttention, arXiv:2205.14135, appendix B.4), the softmax computed again
// for a tile of queries at a time: memory is two tiles [queries, keys] a thread.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/matrix.h"
#include "compress/kernels/attention.h"

namespace llmpress {

// What attention() read and wrote: K, V [tokens, kv_heads * dim].
struct AttentionPass {
  ConstMatrixView Q{}, K{}, V{}, O{};
};

// Where the gradients are added.
struct AttentionGradients {
  MatrixView<float> dQ{}, dK{}, dV{};
  std::span<float> sinks{};  // [heads] or empty: not wanted
};

// attention() of segments without a past, some of whose probabilities are left
// out: those of attention_backward() with the same dropout.
void attention_dropped(ConstMatrixView Q,
                       std::span<const AttentionSegment> segments,
                       const AttentionConfig& config, MatrixView<float> O,
                       ThreadPool& pool, Isa isa);

// `sequences`: the rows of each sequence, one after another, nothing before
// them. The same bits at any number of threads.
void attention_backward(const AttentionPass& pass, ConstMatrixView dO,
                        std::span<const std::size_t> sequences,
                        const AttentionConfig& config,
                        const AttentionGradients& gradients, ThreadPool& pool,
                        Isa isa = best_isa());

}  // namespace llmpress
