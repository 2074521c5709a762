// What holds for every loss of logits, checked beside a plain loss in double.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/core/rng.h"
#include "compress/kernels/cpu.h"

namespace llmpress::testing {

// scale sin(phase + 3 row + 0.7 column): numbers that torch was given, too.
inline MatrixF wave(std::size_t rows, std::size_t cols, double phase,
                    double scale) {
  MatrixF m(rows, cols);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < cols; ++j) {
      m(i, j) = static_cast<float>(scale *
                                   std::sin(phase + 3 * static_cast<double>(i) +
                                            0.7 * static_cast<double>(j)));
    }
  }
  return m;
}

inline MatrixF noise(std::size_t rows, std::size_t cols, Rng& rng,
                     double scale = 1) {
  MatrixF m(rows, cols);
  for (float& x : m.data()) x = static_cast<float>(rng.normal() * scale);
  return m;
}

// A weight for each row, some of them 0.
inline std::vector<float> some_weights(std::size_t rows) {
  std::vector<float> w(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    w[r] = r % 3 == 1 ? 0.0f : 0.5f + static_cast<float>(r % 4);
  }
  return w;
}

inline std::vector<double> log_softmax(std::vector<double> z) {
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (const double x : z) max = std::max(max, x);
  for (const double x : z) sum += std::exp(x - max);
  for (double& x : z) x -= max + std::log(sum);
  return z;
}

inline std::vector<double> doubles(std::span<const float> x,
                                   double divisor = 1) {
  std::vector<double> d(x.begin(), x.end());
  for (double& v : d) v /= divisor;
  return d;
}

// Central differences of `loss` at x.
inline std::vector<double> numeric_gradient(
    const std::function<double(const std::vector<double>&)>& loss,
    std::vector<double> x) {
  std::vector<double> g(x.size());
  constexpr double kStep = 1e-5;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + kStep;
    const double above = loss(x);
    x[i] = at - kStep;
    g[i] = (above - loss(x)) / (2 * kStep);
    x[i] = at;
  }
  return g;
}

inline void expect_gradient(std::span<const double> wanted,
                            std::span<const float> found, double weight) {
  ASSERT_EQ(wanted.size(), found.size());
  double largest = 0;
  for (const double g : wanted) largest = std::max(largest, std::abs(g));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_NEAR(
        found[i], weight * wanted[i],
        std::abs(weight) * (1e-3 * std::abs(wanted[i]) + 1e-6 + 1e-6 * largest))
        << "element " << i;
  }
}

using Loss = std::function<double(ConstMatrixView Z, std::span<const float> w,
                                  MatrixView<float> G, ThreadPool&, Isa)>;
using RowReference =
    std::function<double(std::size_t row, const std::vector<double>& z)>;

// Value and gradient of each row; rows of weight 0 are filled with NaN and must
// change nothing.
inline void expect_agrees(const Loss& loss, const RowReference& reference,
                          MatrixF Z, double temperature = 1) {
  const std::vector<float> w = some_weights(Z.rows());
  double wanted = 0, size = 0;
  for (std::size_t r = 0; r < Z.rows(); ++r) {
    if (w[r] == 0) std::fill_n(Z.row(r).begin(), Z.cols(), std::nanf(""));
    if (w[r] == 0) continue;
    const double row = reference(r, doubles(Z.row(r)));
    wanted += double{w[r]} * row;
    size += double{w[r]} * (std::abs(row) + temperature * temperature);
  }
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF G(Z.rows(), Z.cols());
    EXPECT_NEAR(loss(Z.view(), w, G.view(), pool, isa), wanted, 1e-6 * size)
        << isa_name(isa);
    for (std::size_t r = 0; r < Z.rows(); ++r) {
      if (w[r] == 0) {
        for (const float g : G.row(r)) EXPECT_EQ(g, 0);
        continue;
      }
      expect_gradient(
          numeric_gradient([&](const auto& z) { return reference(r, z); },
                           doubles(Z.row(r))),
          G.row(r), double{w[r]});
    }
    if (::testing::Test::HasFailure()) return;
  }
}

// The same bits at 1 and 3 threads; added to what is in G.
inline void expect_same_at_any_thread_count(const Loss& loss,
                                            ConstMatrixView Z) {
  const std::vector<float> w = some_weights(Z.rows());
  ThreadPool one(1), three(3);
  for (const Isa isa : available_isas()) {
    MatrixF G(Z.rows(), Z.cols()), H(Z.rows(), Z.cols());
    const double a = loss(Z, w, G.view(), one, isa);
    const double b = loss(Z, w, H.view(), three, isa);
    EXPECT_EQ(a, b);
    EXPECT_TRUE(std::equal(G.data().begin(), G.data().end(), H.data().begin()));
    const MatrixF once = G;
    loss(Z, w, G.view(), one, isa);
    for (std::size_t i = 0; i < G.size(); ++i) {
      EXPECT_NEAR(G.data()[i], 2 * once.data()[i],
                  1e-5 * (1e-2 + std::abs(double{once.data()[i]})));
    }
  }
}

inline void expect_finite(const Loss& loss, ConstMatrixView Z) {
  const std::vector<float> w(Z.rows(), 1.0f);
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF G(Z.rows(), Z.cols());
    EXPECT_TRUE(std::isfinite(loss(Z, w, G.view(), pool, isa)));
    for (const float g : G.data()) EXPECT_TRUE(std::isfinite(g));
  }
}

// Value and the gradients [0, 0], [0, 4], [2, 1], [2, 6] for Z = wave(3, 7, 1,
// 2) and weights 1/2, 0, 2, as torch has them in double.
inline void expect_torch(const Loss& loss, double value,
                         const std::vector<double>& gradients) {
  const MatrixF Z = wave(3, 7, 1, 2);
  const std::vector<float> w{0.5f, 0, 2};
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF G(3, 7);
    EXPECT_NEAR(loss(Z.view(), w, G.view(), pool, isa), value, 2e-6 * value);
    EXPECT_NEAR(G(0, 0), gradients[0], 1e-6) << isa_name(isa);
    EXPECT_NEAR(G(0, 4), gradients[1], 1e-6) << isa_name(isa);
    EXPECT_NEAR(G(2, 1), gradients[2], 1e-6) << isa_name(isa);
    EXPECT_NEAR(G(2, 6), gradients[3], 1e-6) << isa_name(isa);
  }
}

}  // namespace llmpress::testing
