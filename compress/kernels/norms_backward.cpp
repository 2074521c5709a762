#include "compress/kernels/norms_backward.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "compress/core/checked.h"

namespace llmpress {
namespace {

// Units of a task: the sums of gain and bias are one partial sum a task.
constexpr std::size_t kUnitsPerTask = 64, kMostTasks = 64;

// Four sums side by side, in an order that does not depend on the compiler.
template <class Term>
double sum_of(std::size_t n, Term term) {
  double lane[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) lane[j] += term(i + j);
  }
  for (; i < n; ++i) lane[0] += term(i);
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) +
         ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

struct Moments {
  float mean = 0, scale = 1;
};

Moments moments(const NormPass& pass, std::span<const float> x) {
  const auto n = static_cast<double>(x.size());
  const double mean =
      pass.centred
          ? sum_of(x.size(), [&](std::size_t i) { return double{x[i]}; }) / n
          : 0;
  const double squares = sum_of(x.size(), [&](std::size_t i) {
    const double d = double{x[i]} - mean;
    return d * d;
  });
  return {
      static_cast<float>(mean),
      static_cast<float>(1 / std::sqrt(squares / n + double{pass.epsilon}))};
}

void add_input_gradient(const NormPass& pass, Moments m,
                        std::span<const float> x, std::span<const float> dy,
                        std::span<const float> gain, std::span<float> dx) {
  const auto n = static_cast<double>(x.size());
  const auto z = [&](std::size_t i) { return (x[i] - m.mean) * m.scale; };
  const auto along = static_cast<float>(
      sum_of(x.size(),
             [&](std::size_t i) { return double{dy[i] * gain[i] * z(i)}; }) /
      n);
  const auto level =
      pass.centred ? static_cast<float>(sum_of(x.size(),
                                               [&](std::size_t i) {
                                                 return double{dy[i] * gain[i]};
                                               }) /
                                        n)
                   : 0.0f;
  for (std::size_t i = 0; i < x.size(); ++i) {
    dx[i] += m.scale * (dy[i] * gain[i] - level - z(i) * along);
  }
}

}  // namespace

void norm_backward(const NormPass& pass, ConstMatrixView dY,
                   const NormSums& sums, ThreadPool& pool) {
  const ConstMatrixView X = pass.X;
  const std::size_t width = X.cols(), turns = pass.gain.size() / width;
  assert(turns * width == pass.gain.size());
  const std::size_t grain =
      std::max(kUnitsPerTask, ceil_div(X.rows(), kMostTasks));
  const std::size_t tasks = ceil_div(X.rows(), grain);
  const std::size_t wide = sums.gain.empty() ? 0 : pass.gain.size();
  MatrixF gains(tasks, wide),
      biases(tasks, sums.bias.empty() ? 0 : pass.gain.size());
  pool.for_each(tasks, [&](std::size_t task) {
    const std::size_t end = std::min(X.rows(), (task + 1) * grain);
    for (std::size_t u = task * grain; u < end; ++u) {
      const auto x = X.row(u), dy = dY.row(u);
      const std::size_t at = u % turns * width;
      const Moments m = moments(pass, x);
      if (wide != 0) {
        float* const g = gains.row(task).data() + at;
        for (std::size_t i = 0; i < width; ++i) {
          g[i] += dy[i] * ((x[i] - m.mean) * m.scale);
        }
      }
      if (!sums.bias.empty()) {
        float* const b = biases.row(task).data() + at;
        for (std::size_t i = 0; i < width; ++i) b[i] += dy[i];
      }
      if (sums.dX.size() != 0) {
        add_input_gradient(pass, m, x, dy, pass.gain.subspan(at, width),
                           sums.dX.row(u));
      }
    }
  });
  for (std::size_t task = 0; task < tasks; ++task) {
    for (std::size_t i = 0; i < gains.cols(); ++i) {
      sums.gain[i] += gains(task, i);
    }
    for (std::size_t i = 0; i < biases.cols(); ++i) {
      sums.bias[i] += biases(task, i);
    }
  }
}

}  // namespace llmpress
