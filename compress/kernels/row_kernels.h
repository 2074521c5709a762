// The operations on rows of numbers for one instruction set: what softmax.h and
// activations.h and activation_rounding.h choose from at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compress/core/activation_grid.h"
#include "compress/kernels/activations.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

struct RowKernels {
  float (*max)(const float* x, std::size_t n);
  // sum_i exp(x_i - shift), in double.
  double (*sum_exp)(const float* x, std::size_t n, float shift);
  // y_i = exp(x_i - shift) * factor
  void (*scaled_exp)(const float* x, std::size_t n, float shift, float factor,
                     float* y);
  // sum_i exp(p_i - shift) (p_i - q_i - difference), where the first is not 0.
  double (*divergence)(const float* p, const float* q, std::size_t n,
                       float shift, double difference);
  // y_i = f(x_i), times up_i unless `up` is null.
  void (*activate)(Activation f, const float* x, const float* up, std::size_t n,
                   float* y);
  // y_i = f'(x_i)
  void (*slopes)(Activation f, const float* x, std::size_t n, float* y);
  // grid.code() of x_i * mask_i, or of x_i if `mask` is null.
  void (*round_codes)(const float* x, const float* mask, std::size_t n,
                      const ActivationGrid& grid, std::int8_t* codes);
};

// Null for kScalar.
const RowKernels* row_kernels(Isa isa);
const RowKernels& row_kernels_avx2();
const RowKernels& row_kernels_avx512();

}  // namespace llmpress
