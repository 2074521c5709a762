// Fewer key/value heads: multi-head to grouped-query attention, and grouped to
// more grouped. The new heads are uniform: kv_heads / new_kv_heads old ones
// each.
//
// Mean pooling (GQA, arXiv:2305.13245, section 2.1): the key and value matrices
// of neighbouring heads are averaged. Meant to be trained afterwards.
//
// Calibrated, training-free: with S = E[x x^T] of the attention's input,
//  1. heads that are alike on S go together (query heads move with theirs);
//  2. values: the group's stacked values [g * head_dim] are projected on their
//     head_dim principal components B; v_a ~ B_a v' and o_a <- o_a B_a;
//  3. keys: rotary embeddings turn each pair of dimensions, taken as one
//  complex
//     number, by an angle; only complex factors commute with that. In every
//     pair, the group's keys [g] are projected on their first principal
//     component c: k_a ~ c_a k', and q_a <- conj(c_a) q_a, which leaves q . k
//     as it is.
// Both projections are the best of their kind for E|k - k~|^2 and E|v - v~|^2
// (Eckart and Young). Biases are transformed as their weights.
//
// Cost: 2 * kv * d * (d + kv) multiply-adds for kv = kv_heads * head_dim rows
// of width d, and one SVD [g * head_dim] a group.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// Which two dimensions of a head rotary embeddings turn together.
enum class RotaryPairs {
  kHalves,       // i and i + rotary_dim / 2 (Hugging Face's rotate_half)
  kInterleaved,  // 2 i and 2 i + 1 (GPT-J, original LLaMA); also without rotary
};

struct AttentionShape {
  std::size_t heads = 0, kv_heads = 0, head_dim = 0;
  RotaryPairs pairs = RotaryPairs::kHalves;
  std::size_t rotary_dim = 0;  // 0: head_dim. Dimensions beyond it do not turn.
};

struct AttentionWeights {
  MatrixF q{};                                      // [heads * head_dim, d]
  MatrixF k{};                                      // [kv_heads * head_dim, d]
  MatrixF v{};                                      // [kv_heads * head_dim, d]
  MatrixF o{};                                      // [d, heads * head_dim]
  std::vector<float> q_bias{}, k_bias{}, v_bias{};  // of the rows, or empty
};

struct GroupedAttention {
  AttentionWeights weights{};
  // Old key/value heads in their new order: the first g make the first group.
  std::vector<std::size_t> kv_order{};
  // Share of E|k|^2 and E|v|^2 that the new heads do not carry. Calibrated
  // only.
  double key_loss = 0, value_loss = 0;
};

// Throw Error(kInvalidArgument) for shapes that do not fit each other, or a
// new_kv_heads that does not divide shape.kv_heads.
GroupedAttention group_kv_heads_by_mean(const AttentionWeights& weights,
                                        const AttentionShape& shape,
                                        std::size_t new_kv_heads);

// S [d, d]. head_dim must be even.
GroupedAttention group_kv_heads_calibrated(const AttentionWeights& weights,
                                           const AttentionShape& shape,
                                           std::size_t new_kv_heads,
                                           ConstMatrixView S, ThreadPool& pool);

}  // namespace llmpress
