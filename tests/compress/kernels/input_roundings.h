// Ways to round inputs, and inputs that show them apart, for the tests of
// whatever runs or learns with rounded inputs.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "compress/core/packed_weight.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress::testing {

// Of a token, of groups side by side (the last shorter), as integers and as fp8.
inline std::vector<ActivationQuant> input_roundings() {
  using Kind = ActivationQuant::Kind;
  const auto grouped = ActivationQuant::Range::kGroup;
  return {{},
          {.kind = Kind::kInt, .bits = 8},
          {.kind = Kind::kInt, .bits = 8, .range = grouped, .group_size = 10},
          {.kind = Kind::kInt,
           .bits = 4,
           .range = grouped,
           .group_size = 8,
           .symmetric = false},
          {.kind = Kind::kFp8, .range = grouped, .group_size = 16}};
}

// Inputs of each eight columns ten times as large as those before them: with one
// scale a token most of them round to 0.
inline MatrixF uneven_matrix(std::size_t rows, std::size_t cols, Rng& rng) {
  MatrixF X = random_matrix(rows, cols, rng);
  for (std::size_t t = 0; t < rows; ++t) {
    for (std::size_t i = 0; i < cols; ++i) {
      X(t, i) *= std::pow(10.0f, static_cast<float>(i / 8) - 1);
    }
  }
  return X;
}

}  // namespace llmpress::testing
