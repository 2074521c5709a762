// The rounding of a Linear's input before the product, as integer codes for the
// integer kernels; quantize_activations_in_place (linear_kernel.h) is the same
// rounding decoded back to floats, and states the formulas.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

// x[t, i] ~ scales[t] * (codes[t, i] - zeros[t]) for i not in exact_columns,
// where the code equals zeros[t] (the number 0).
struct IntActivations {
  std::size_t tokens = 0, in = 0;
  std::vector<std::int8_t> codes{};   // [tokens, in]
  std::vector<float> scales{};        // [tokens]
  std::vector<std::int32_t> zeros{};  // [tokens]
  // Columns whose product stays in floating point, ascending.
  std::vector<std::uint32_t> exact_columns{};
};

// quant.kind must be kInt, with one grid a token or fewer (not kGroup). Throws Error(kNumeric) if a value is not finite.
// The codes are the same on every instruction set.
IntActivations round_activations(const ActivationQuant& quant,
                                 ConstMatrixView X,
                                 std::span<const std::uint32_t> exact_columns,
                                 ThreadPool& pool, Isa isa);

// quantize_activations_in_place on all threads.
void round_activations_in_place(const ActivationQuant& quant,
                                MatrixView<float> X,
                                std::span<const std::uint32_t> exact_columns,
                                ThreadPool& pool);

}  // namespace llmpress
