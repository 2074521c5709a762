#include "lora/lora_delta.h"

#include <cmath>
#include <cstddef>
#include <string>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"

namespace llmpress {
namespace {

constexpr std::size_t kGrain = 64;  // rows or columns of a chunk

std::string shape(std::size_t r, std::size_t c) {
  return formatted("[{}, {}]", r, c);
}

void check_shapes(const LoraDelta& delta, ConstMatrixView W) {
  const std::size_t out = delta.transposed ? W.cols() : W.rows();
  const std::size_t in = delta.transposed ? W.rows() : W.cols();
  const bool fits =
      delta.A.cols() == in && delta.B.rows() == out &&
      delta.A.rows() == delta.B.cols() &&
      (delta.magnitude.empty() || delta.magnitude.size() == out) &&
      (delta.bias.empty() || delta.bias.size() == out);
  if (fits) return;
  fail(ErrorCode::kInvalidArgument,
       "lora: A {} and B {} do not fit a weight {}{}",
       shape(delta.A.rows(), delta.A.cols()),
       shape(delta.B.rows(), delta.B.cols()), shape(W.rows(), W.cols()),
       delta.transposed ? " stored [in, out]" : "");
}

MatrixF transpose(const MatrixF& M) {
  MatrixF T(M.cols(), M.rows());
  for (std::size_t r = 0; r < M.rows(); ++r) {
    for (std::size_t c = 0; c < M.cols(); ++c) T(c, r) = M(r, c);
  }
  return T;
}

// V += scaling B A, in the layout of the stored weight.
void add_product(const LoraDelta& delta, double scaling, MatrixView<float> V,
                 ThreadPool& pool) {
  const auto alpha = static_cast<float>(scaling);
  if (delta.transposed) {
    matmul_transposed(transpose(delta.A).view(), delta.B.view(), V, pool, alpha,
                      Accumulate::kAdd);
  } else {
    matmul(delta.B.view(), delta.A.view(), V, pool, alpha, Accumulate::kAdd);
  }
}

double squared(float x) { return static_cast<double>(x) * x; }

// |V|^2 of each output: of its rows, or of its columns if transposed.
std::vector<double> squared_norms(ConstMatrixView V, bool transposed,
                                  ThreadPool& pool) {
  std::vector<double> sums(transposed ? V.cols() : V.rows());
  pool.for_ranges(sums.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    if (transposed) {
      for (std::size_t i = 0; i < V.rows(); ++i) {
        for (std::size_t o = begin; o < end; ++o) sums[o] += squared(V(i, o));
      }
    } else {
      for (std::size_t o = begin; o < end; ++o) {
        for (const float v : V.row(o)) sums[o] += squared(v);
      }
    }
  });
  return sums;
}

// m / |V|_2 with V = W + scaling B A.
std::vector<double> magnitude_factors(const LoraDelta& delta, ConstMatrixView V,
                                      ThreadPool& pool) {
  std::vector<double> factors = squared_norms(V, delta.transposed, pool);
  for (std::size_t o = 0; o < factors.size(); ++o) {
    factors[o] =
        factors[o] == 0 ? 1 : delta.magnitude[o] / std::sqrt(factors[o]);
  }
  return factors;
}

MatrixF directions(const LoraDelta& delta, ConstMatrixView W,
                   ThreadPool& pool) {
  MatrixF V{W};
  add_product(delta, delta.scaling, V.view(), pool);
  return V;
}

void merge_dora(const LoraDelta& delta, double weight, MatrixView<float> W,
                ThreadPool& pool) {
  const MatrixF V = directions(delta, W, pool);
  const std::vector<double> factors = magnitude_factors(delta, V.view(), pool);
  pool.for_ranges(W.rows(), kGrain, [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) {
      for (std::size_t c = 0; c < W.cols(); ++c) {
        const double merged = factors[delta.transposed ? c : r] * V(r, c);
        const double from = weight == 1 ? 0 : (1 - weight) * W(r, c);
        W(r, c) = static_cast<float>(from + weight * merged);
      }
    }
  });
}

void check_finite(std::span<const float> values, const char* what) {
  for (const float v : values) {
    if (std::isfinite(v)) continue;
    fail(ErrorCode::kNumeric, "lora: {} is not finite", what);
  }
}

}  // namespace

void merge_in_place(const LoraDelta& delta, double weight, MatrixView<float> W,
                    ThreadPool& pool) {
  check_shapes(delta, W);
  if (delta.magnitude.empty()) {
    add_product(delta, weight * delta.scaling, W, pool);
  } else {
    merge_dora(delta, weight, W, pool);
  }
  check_finite(W.data(), "the merged weight");
}

void merge_bias_in_place(const LoraDelta& delta, double weight,
                         std::span<float> b) {
  if (delta.bias.empty()) return;
  if (delta.bias.size() != b.size()) {
    fail(ErrorCode::kInvalidArgument,
         "lora: a bias of {} does not fit one of {}", delta.bias.size(),
         b.size());
  }
  for (std::size_t o = 0; o < b.size(); ++o) {
    b[o] = static_cast<float>(b[o] + weight * delta.scaling * delta.bias[o]);
  }
  check_finite(b, "the merged bias");
}

void unmerge_in_place(const LoraDelta& delta, double weight,
                      MatrixView<float> W, ThreadPool& pool) {
  if (!delta.magnitude.empty()) {
    throw Error(ErrorCode::kUnsupported,
                "lora: DoRA cannot be unmerged: it replaced the norms of the "
                "rows, and the adapter does not hold the original ones");
  }
  merge_in_place(delta, -weight, W, pool);
}

MatrixF change_of(const LoraDelta& delta, ConstMatrixView W, ThreadPool& pool) {
  check_shapes(delta, W);
  MatrixF change(W.rows(), W.cols());
  if (delta.magnitude.empty()) {
    add_product(delta, delta.scaling, change.view(), pool);
  } else {
    change = MatrixF{W};
    merge_dora(delta, 1, change.view(), pool);
    for (std::size_t i = 0; i < W.size(); ++i) change.data()[i] -= W.data()[i];
  }
  check_finite(change.data(), "the change of the weight");
  return change;
}

std::vector<float> dora_factors(const LoraDelta& delta, ConstMatrixView W,
                                ThreadPool& pool) {
  check_shapes(delta, W);
  if (delta.magnitude.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "lora: not a DoRA adapter");
  }
  const MatrixF V = directions(delta, W, pool);
  const std::vector<double> factors = magnitude_factors(delta, V.view(), pool);
  const std::vector<float> rounded(factors.begin(), factors.end());
  check_finite(rounded, "a DoRA factor");
  return rounded;
}

}  // namespace llmpress
