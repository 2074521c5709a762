// Random adapters, and what they mean in plain double loops.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/rng.h"
#include "lora/lora_delta.h"

namespace llmpress {

inline MatrixF random_matrix(std::size_t rows, std::size_t cols, Rng& rng) {
  MatrixF M(rows, cols);
  for (float& v : M.data()) v = static_cast<float>(rng.normal());
  return M;
}

inline LoraDelta random_lora(std::size_t out, std::size_t in, std::size_t r,
                             bool dora, Rng& rng) {
  LoraDelta delta{.A = random_matrix(r, in, rng),
                  .B = random_matrix(out, r, rng),
                  .scaling = 0.1 + rng.uniform()};
  for (std::size_t o = 0; dora && o < out; ++o) {
    delta.magnitude.push_back(static_cast<float>(0.5 + rng.uniform()));
  }
  return delta;
}

inline MatrixF transposed(const MatrixF& M) {
  MatrixF T(M.cols(), M.rows());
  for (std::size_t r = 0; r < M.rows(); ++r) {
    for (std::size_t c = 0; c < M.cols(); ++c) T(c, r) = M(r, c);
  }
  return T;
}

// W' [out, in] in double, and how far float32 may be from each element of it.
struct Reference {
  Matrix<double> value{};
  Matrix<double> bound{};
};

inline constexpr double kUnit = 0x1p-24;  // of float32 rounding

// A product of r terms in float32 in any order, times a rounded scaling, plus
// w: errors of at most (r + 4) units of all magnitudes together.
inline Reference naive_merge(const LoraDelta& delta, const MatrixF& W) {
  const std::size_t out = W.rows(), in = W.cols(), r = delta.A.rows();
  Reference ref{Matrix<double>(out, in), Matrix<double>(out, in)};
  const double units = kUnit * (static_cast<double>(r) + 4) * 1.01;
  for (std::size_t o = 0; o < out; ++o) {
    double squares = 0, error = 0;
    for (std::size_t i = 0; i < in; ++i) {
      double sum = 0, magnitude = 0;
      for (std::size_t k = 0; k < r; ++k) {
        const double term = static_cast<double>(delta.B(o, k)) * delta.A(k, i);
        sum += term;
        magnitude += std::fabs(term);
      }
      const double v = W(o, i) + delta.scaling * sum;
      ref.value(o, i) = v;
      ref.bound(o, i) =
          units * (std::fabs(W(o, i)) + std::fabs(delta.scaling) * magnitude);
      squares += v * v;
      error += std::fabs(v) * ref.bound(o, i);
    }
    if (delta.magnitude.empty() || squares == 0) continue;
    // d(m v / |v|) <= m / |v| (dv_i + |v_i| sum |v_j| dv_j / |v|^2), one more
    // rounding, and a hundredth for the second order.
    const double factor = delta.magnitude[o] / std::sqrt(squares);
    for (std::size_t i = 0; i < in; ++i) {
      const double v = std::fabs(ref.value(o, i));
      ref.bound(o, i) = std::fabs(factor) * 1.01 *
                        (ref.bound(o, i) + v * error / squares + kUnit * v);
      ref.value(o, i) *= factor;
    }
  }
  return ref;
}

}  // namespace llmpress
