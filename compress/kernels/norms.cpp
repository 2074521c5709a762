#include "compress/kernels/norms.h"

#include <cassert>
#include <cmath>

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 16;

// Eight sums side by side: the compiler may use vectors, and the order of the
// additions stays the one written here.
template <class Term>
double sum_of(std::span<const float> x, Term term) {
  double lane[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= x.size(); i += 8) {
    for (std::size_t j = 0; j < 8; ++j) lane[j] += term(x[i + j]);
  }
  double tail = 0;
  for (; i < x.size(); ++i) tail += term(x[i]);
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) +
         ((lane[2] + lane[6]) + (lane[3] + lane[7])) + tail;
}

}  // namespace

void rms_norm(ConstMatrixView X, std::span<const float> gain, float epsilon,
              MatrixView<float> Y, ThreadPool& pool) {
  assert(gain.size() == X.cols() && Y.rows() == X.rows() &&
         Y.cols() == X.cols());
  pool.for_ranges(
      X.rows(), kRowsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = begin; r < end; ++r) {
          const auto x = X.row(r);
          const auto y = Y.row(r);
          const double squares =
              sum_of(x, [](float v) { return double{v} * double{v}; });
          const auto scale = static_cast<float>(
              1.0 / std::sqrt(squares / static_cast<double>(x.size()) +
                              double{epsilon}));
          for (std::size_t i = 0; i < x.size(); ++i) {
            y[i] = x[i] * scale * gain[i];
          }
        }
      });
}

void layer_norm(ConstMatrixView X, std::span<const float> gain,
                std::span<const float> bias, float epsilon, MatrixView<float> Y,
                ThreadPool& pool) {
  assert(gain.size() == X.cols() && Y.rows() == X.rows() &&
         Y.cols() == X.cols() && (bias.empty() || bias.size() == X.cols()));
  pool.for_ranges(
      X.rows(), kRowsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = begin; r < end; ++r) {
          const auto x = X.row(r);
          const auto y = Y.row(r);
          const auto n = static_cast<double>(x.size());
          const double mean = sum_of(x, [](float v) { return double{v}; }) / n;
          const double variance = sum_of(x,
                                         [mean](float v) {
                                           const double d = double{v} - mean;
                                           return d * d;
                                         }) /
                                  n;
          const double scale = 1.0 / std::sqrt(variance + double{epsilon});
          for (std::size_t i = 0; i < x.size(); ++i) {
            const auto z = static_cast<float>((double{x[i]} - mean) * scale);
            y[i] = z * gain[i] + (bias.empty() ? 0.0f : bias[i]);
          }
        }
      });
}

}  // namespace llmpress
