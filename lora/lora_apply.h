// An adapter that stays beside its base weight at inference, base packed or
// not:
//   y = f o (W x) + B (A x) + c
// For plain LoRA f = 1, B carries weight * scaling and c = weight * scaling *
// bias. DoRA with factors d = m / |W + scaling B A|_2 of each output row
// (lora_delta.h) and the part `weight` of the way gives
//   f = 1 - weight + weight d,   B = weight * scaling * d o B
// so the factors are computed once, from the base weight, and inference costs
// tokens * r * (in + out) multiply-adds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "lora/lora_delta.h"

namespace llmpress {

struct LoraOperator {
  MatrixF A{};  // [r, in]; of an embedding [r, vocab]
  MatrixF B{};  // [out, r], scaled; of an embedding [dim, r]
  std::vector<float> base_factors{};  // f [out]; empty: 1
  std::vector<float> bias{};          // c [out]; empty: 0
};

// `W` as in merge_in_place; it is read for DoRA alone (and may be empty for
// others), whose base must be the
// one of inference: the dequantized weight if that is packed. Throws
// Error(kInvalidArgument) if shapes do not fit.
LoraOperator make_operator(const LoraDelta& delta, double weight,
                           ConstMatrixView W, ThreadPool& pool);

// All of them at once, beside the same base: f = 1 + sum of (f_t - 1), the
// factors side by side. At least one, of the same shape (assert).
LoraOperator sum_of(std::vector<LoraOperator> operators);

// Y [tokens, out] comes in as X W^T, for DoRA without the Linear's own bias,
// and goes out as the line above. X [tokens, in].
void apply_in_place(const LoraOperator& lora, ConstMatrixView X,
                    MatrixView<float> Y, ThreadPool& pool);

// The same for an embedding: Y [tokens, dim] comes in as rows of its table.
// Throws Error(kInvalidArgument) for a token that the adapter does not have.
void apply_embedding_in_place(const LoraOperator& lora,
                              std::span<const std::uint32_t> tokens,
                              MatrixView<float> Y, ThreadPool& pool);

}  // namespace llmpress
