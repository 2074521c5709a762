// What operations with a state over the tokens of a sequence share.
#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <numeric>
#include <span>

#include "compress/model/ops/op_context.h"

namespace llmpress {

// Calls step(first_row, rows, part, state) for every sequence of the batch and
// every part of the state, in parallel: rows [first_row, first_row + rows) are
// the sequence's in order, `state` is part `part` of `parts` equal ones of its
// state in `slot` (zeros at the start of a sequence), changed in place.
using RecurrenceStep =
    std::function<void(std::size_t first_row, std::size_t rows,
                       std::size_t part, std::span<float> state)>;
void for_each_sequence(const OpContext& context, std::size_t slot,
                       std::size_t state_size, std::size_t parts,
                       const RecurrenceStep& step);

// Into how many equal parts channels are dealt that do not know each other.
inline std::size_t channel_parts(std::size_t channels) {
  constexpr std::size_t kMost = 16;
  return std::gcd(channels, kMost);
}

inline float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }
inline float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

}  // namespace llmpress
