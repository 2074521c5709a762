// Automatic mixed precision: one option for each layer so that the sum of
// losses is smallest and the sum of bytes within a budget (a multiple-choice
// knapsack):
//
//   min sum_l loss[l][c_l]   subject to   sum_l bytes[l][c_l] <= budget
//
// Losses are taken to add up, as they do to first order when each layer's loss
// is measured with the others uncompressed. Options that another one beats in
// both bytes and loss are dropped; the rest is dynamic programming over the
// budget. It is exact while the spread of bytes, in units of their common
// divisor, is below kAllocationStates; beyond, bytes are rounded up to coarser
// units (the budget is never exceeded) and the result is improved by exchanges
// between two layers. Cost: layers * options * kAllocationStates, and
// (layers * options)^2 for each round of exchanges.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "quantizers/method.h"

namespace llmpress {

inline constexpr std::size_t kAllocationStates = 32768;

struct BitOption {
  std::size_t bytes = 0;
  double loss = 0;
};

struct BitAllocation {
  std::vector<std::size_t> choice{};  // [layers]: index into its options
  std::size_t bytes = 0;
  double loss = 0;
};

// nullopt if even the smallest options exceed the budget. Throws
// Error(kInvalidArgument) if a layer has no options or a loss is NaN.
std::optional<BitAllocation> allocate_bits(
    std::span<const std::vector<BitOption>> layers, std::size_t budget_bytes);

// "auto": the pipeline measures the losses and gives each Linear its width; what
// is left to this row is to round with config.solver.
QuantizerMethod auto_method();

}  // namespace llmpress
