#include "quantizers/weight_error.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "compress/core/linalg.h"
#include "compress/core/vector_clones.h"

namespace llmpress {
namespace {

constexpr std::size_t kSliceRows = 512;
constexpr std::size_t kRowsPerTask = 16;
constexpr std::size_t kLanes = 16;

LLMPRESS_VECTOR_CLONES
double dot(const float* a, const float* b, std::size_t n) {
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      lanes[l] += static_cast<double>(a[i + l]) * static_cast<double>(b[i + l]);
    }
  }
  for (; i < n; ++i) {
    lanes[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

// dot(a, a), bit for bit: each number is widened once.
LLMPRESS_VECTOR_CLONES
double squares(const float* a, std::size_t n) {
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const auto x = static_cast<double>(a[i + l]);
      lanes[l] += x * x;
    }
  }
  for (; i < n; ++i) {
    lanes[0] += static_cast<double>(a[i]) * static_cast<double>(a[i]);
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

LLMPRESS_VECTOR_CLONES
std::size_t subtract(const float* changed, const float* w, std::size_t n,
                     float* d) {
  std::uint32_t zeros = 0;
  for (std::size_t i = 0; i < n; ++i) {
    zeros += changed[i] == 0.0f ? 1u : 0u;
    d[i] = changed[i] - w[i];
  }
  return zeros;
}

// Rows [begin, begin + D.rows()) of D; returns how many numbers of W' are zero.
using FillRows =
    std::function<std::size_t(std::size_t begin, MatrixView<float> D)>;

WeightDifference measure(std::size_t rows, std::size_t cols, ConstMatrixView S,
                         ThreadPool& pool, const FillRows& fill) {
  if (rows == 0) return {};
  std::vector<double> errors(rows);
  std::vector<std::size_t> zeros(rows);
  MatrixF D(S.size() == 0 ? 0 : std::min(kSliceRows, rows), cols);
  MatrixF DS(D.rows(), cols);
  for (std::size_t begin = 0; begin < rows; begin += kSliceRows) {
    const std::size_t count = std::min(kSliceRows, rows - begin);
    const auto in_tasks = [&](auto body) {
      pool.for_ranges(count, kRowsPerTask, body);
    };
    if (S.size() == 0) {
      in_tasks([&](std::size_t first, std::size_t end) {
        MatrixF d(1, cols);
        for (std::size_t r = begin + first; r < begin + end; ++r) {
          zeros[r] = fill(r, d.view());
          errors[r] = squares(d.data().data(), cols);
        }
      });
      continue;
    }
    const auto some = D.view().rows_slice(0, count);
    const auto product = DS.view().rows_slice(0, count);
    in_tasks([&](std::size_t first, std::size_t end) {
      for (std::size_t r = first; r < end; ++r) {
        zeros[begin + r] = fill(begin + r, some.rows_slice(r, 1));
      }
    });
    matmul_transposed(some, S, product, pool);  // S is symmetric
    in_tasks([&](std::size_t first, std::size_t end) {
      for (std::size_t r = first; r < end; ++r) {
        errors[begin + r] =
            dot(some.row(r).data(), product.row(r).data(), cols);
      }
    });
  }
  const double total = std::accumulate(errors.begin(), errors.end(), 0.0);
  const auto nothing = static_cast<double>(
      std::accumulate(zeros.begin(), zeros.end(), std::size_t{0}));
  const auto count = static_cast<double>(rows);
  return {std::max(0.0, total / count),
          cols == 0 ? 0.0 : nothing / (count * static_cast<double>(cols))};
}

}  // namespace

WeightDifference difference_of(ConstMatrixView W, const PackedWeight& changed,
                               ConstMatrixView S, ThreadPool& pool) {
  return measure(
      W.rows(), W.cols(), S, pool, [&](std::size_t o, MatrixView<float> D) {
        thread_local std::vector<float> row;
        row.resize(W.cols());
        dequantize_rows(changed, o, {row, 1, W.cols()});
        return subtract(row.data(), W.row(o).data(), W.cols(), D.data().data());
      });
}

RowDifference row_difference(std::span<const float> changed,
                             std::span<const float> w) {
  thread_local std::vector<float> d;
  d.resize(w.size());
  const std::size_t zeros =
      subtract(changed.data(), w.data(), w.size(), d.data());
  return {.error = squares(d.data(), d.size()),
          .energy = squares(w.data(), w.size()),
          .zeros = zeros};
}

RowTotals total_of(std::span<const RowDifference> rows, std::size_t in) {
  if (rows.empty()) return {};
  double error = 0, energy = 0;
  std::size_t zeros = 0;
  for (const RowDifference& row : rows) {
    error += row.error;
    energy += row.energy;
    zeros += row.zeros;
  }
  const auto count = static_cast<double>(rows.size());
  return {.difference = {std::max(0.0, error / count),
                         in == 0 ? 0.0
                                 : static_cast<double>(zeros) /
                                       (count * static_cast<double>(in))},
          .energy = energy / count};
}

double zero_fraction(const PackedWeight& weight, ThreadPool& pool) {
  const std::size_t rows = rows_of(weight), cols = cols_of(weight);
  std::vector<std::size_t> zeros(rows);
  pool.for_ranges(rows, kRowsPerTask, [&](std::size_t begin, std::size_t end) {
    std::vector<float> row(cols);
    for (std::size_t o = begin; o < end; ++o) {
      dequantize_rows(weight, o, {row, 1, cols});
      zeros[o] = static_cast<std::size_t>(std::ranges::count(row, 0.0f));
    }
  });
  const auto nothing = static_cast<double>(
      std::accumulate(zeros.begin(), zeros.end(), std::size_t{0}));
  return nothing / static_cast<double>(std::max<std::size_t>(rows * cols, 1));
}

double output_error(ConstMatrixView W, ConstMatrixView changed,
                    ConstMatrixView S, ThreadPool& pool) {
  return measure(W.rows(), W.cols(), S, pool,
                 [&](std::size_t o, MatrixView<float> D) {
                   return subtract(changed.row(o).data(), W.row(o).data(),
                                   W.cols(), D.data().data());
                 })
      .output_error;
}

double output_energy(ConstMatrixView W, ConstMatrixView S, ThreadPool& pool) {
  return measure(W.rows(), W.cols(), S, pool,
                 [&](std::size_t o, MatrixView<float> D) {
                   std::ranges::copy(W.row(o), D.data().begin());
                   return std::size_t{0};
                 })
      .output_error;
}

}  // namespace llmpress
