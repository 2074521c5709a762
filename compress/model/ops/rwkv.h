// What RWKV-4 has in attention's place (arXiv:2305.13048, section 3.1).
#pragma once

#include <cstddef>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: x [tokens, width]; out: x of the token before, zeros at the start of a
// sequence.
struct TokenShiftOp {
  std::size_t slot = 0;  // [width]

  bool operator==(const TokenShiftOp&) const = default;
};

// in: a, b [tokens, width]; out = mix a + (1 - mix) b.
struct InterpolateOp {
  std::size_t mix = 0;  // parameter [width]

  bool operator==(const InterpolateOp&) const = default;
};

// in: k, v [tokens, channels]; out: the mean of v over the tokens so far, each
// weighed by exp(k) and by exp(-exp(decay)) for every token since it, but the
// last by exp(k + bonus) (Eq. 16):
//   out = (a + exp(bonus + k) v) / (b + exp(bonus + k))
//   a  <- exp(-exp(decay)) a + exp(k) v;  b <- exp(-exp(decay)) b + exp(k)
// The state holds a, b and a maximum m for each channel, a and b divided by
// exp(m); b = 0 before the first token.
struct WkvOp {
  std::size_t channels = 1;
  std::size_t decay = 0, bonus = 0;  // parameters [channels]
  std::size_t slot = 0;              // [channels, 3]

  bool operator==(const WkvOp&) const = default;
};

void run(const TokenShiftOp& op, const OpContext& context,
         const OpArguments& arguments);
void run(const InterpolateOp& op, const OpContext& context,
         const OpArguments& arguments);
void run(const WkvOp& op, const OpContext& context,
         const OpArguments& arguments);

void backward(const TokenShiftOp& op, const OpContext& context,
              const OpGradients& gradients);
void backward(const InterpolateOp& op, const OpContext& context,
              const OpGradients& gradients);
void backward(const WkvOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress
