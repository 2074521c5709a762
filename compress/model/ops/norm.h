// Normalization of rows, or of every head of a row.
#pragma once

#include <cstddef>
#include <optional>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

enum class NormKind { kRms, kLayer };

// in: x [tokens, width]; out: the same shape.
//   rms    y = x / sqrt(mean(x^2) + epsilon) * gain          arXiv:1910.07467
//   layer  y = (x - mean) / sqrt(var + epsilon) * gain + bias  arXiv:1607.06450
// over `unit` columns at a time (0: the whole row). The gain is [unit], or
// [width] where each unit has its own, or there is none.
struct NormOp {
  NormKind kind = NormKind::kRms;
  std::optional<std::size_t> norm{};  // index into BlockSpec::norms
  float epsilon = 1e-5f;
  std::size_t unit = 0;

  bool operator==(const NormOp&) const = default;
};

void run(const NormOp& op, const OpContext& context,
         const OpArguments& arguments);

void backward(const NormOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress
