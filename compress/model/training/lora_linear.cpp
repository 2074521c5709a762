#include "compress/model/training/lora_linear.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTile = 256, kRowsPerTask = 16;
constexpr std::size_t kTokensPerTask = 64;

MatrixF uniform_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  MatrixF A(rows, cols);
  Rng rng(seed);
  const double bound = 1 / std::sqrt(static_cast<double>(cols));
  for (float& a : A.data()) {
    a = static_cast<float>(bound * (2 * rng.uniform() - 1));
  }
  return A;
}

void check_rank(const LoraConfig& config, std::size_t out, std::size_t in) {
  if (config.rank != 0 && config.rank <= std::min(out, in)) return;
  fail(ErrorCode::kInvalidArgument,
       "an adapter of rank {} for a weight [{}, {}]: wanted 1 to {}",
       config.rank, out, in, std::min(out, in));
}

// A row without a direction is not scaled.
float row_factor(float magnitude, double norm) {
  return norm == 0 ? 1.0f : static_cast<float>(magnitude / norm);
}

}  // namespace

LoraLinear::LoraLinear(LinearWeights base, const LoraConfig& config, Isa isa)
    : bias_(config.dora ? std::exchange(base.bias, {}) : std::vector<float>()),
      base_(std::move(base), isa),
      scaling_(static_cast<float>(config.scaling)) {
  check_rank(config, out(), in());
  A_ = uniform_matrix(config.rank, in(), config.seed);
  B_ = MatrixF(out(), config.rank);
  dA_ = MatrixF(config.rank, in());
  dB_ = MatrixF(out(), config.rank);
  if (!config.dora) return;
  ThreadPool alone(1);
  for (const double norm : row_norms(alone)) {
    magnitude_.push_back(static_cast<float>(norm));
  }
  d_magnitude_.resize(out());
}

std::vector<double> LoraLinear::row_norms(ThreadPool& pool) const {
  std::vector<double> norms(out());
  for (std::size_t o = 0; o < out(); o += kRowsPerTile) {
    MatrixF tile(std::min(kRowsPerTile, out() - o), in());
    const auto for_rows = [&](const auto& body) {
      pool.for_ranges(tile.rows(), kRowsPerTask, body);
    };
    for_rows([&](std::size_t begin, std::size_t end) {
      dequantize_rows(base_.weight(), o + begin,
                      tile.view().rows_slice(begin, end - begin));
    });
    matmul(B_.view().rows_slice(o, tile.rows()), A_.view(), tile.view(), pool,
           scaling_, Accumulate::kAdd);
    for_rows([&](std::size_t begin, std::size_t end) {
      for (std::size_t r = begin; r < end; ++r) {
        double sum = 0;
        for (const float w : tile.row(r)) sum += static_cast<double>(w) * w;
        norms[o + r] = std::sqrt(sum);
      }
    });
  }
  return norms;
}

void LoraLinear::run_directions(ConstMatrixView X, ConstMatrixView H,
                                MatrixView<float> Z, ThreadPool& pool) const {
  base_.run(X, Z, pool);
  matmul_transposed(H, B_.view(), Z, pool, scaling_, Accumulate::kAdd);
}

void LoraLinear::run(ConstMatrixView X, MatrixView<float> Y,
                     ThreadPool& pool) const {
  if (X.rows() == 0) return;
  MatrixF H(X.rows(), A_.rows());
  matmul_transposed(X, A_.view(), H.view(), pool);
  run_directions(X, H.view(), Y, pool);
  if (magnitude_.empty()) return;
  const std::vector<double> norms = row_norms(pool);
  std::vector<float> factors(out());
  for (std::size_t o = 0; o < out(); ++o) {
    factors[o] = row_factor(magnitude_[o], norms[o]);
  }
  pool.for_ranges(Y.rows(), kTokensPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t t = begin; t < end; ++t) {
                      const auto y = Y.row(t);
                      for (std::size_t o = 0; o < y.size(); ++o) {
                        y[o] *= factors[o];
                        if (!bias_.empty()) y[o] += bias_[o];
                      }
                    }
                  });
}

MatrixF LoraLinear::scale_gradient(ConstMatrixView X, ConstMatrixView H,
                                   ConstMatrixView dY, ThreadPool& pool) {
  const std::vector<double> norms = row_norms(pool);
  MatrixF G(dY), Z(dY.rows(), dY.cols());
  run_directions(X, H, Z.view(), pool);
  pool.for_ranges(G.rows(), kTokensPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t t = begin; t < end; ++t) {
                      for (std::size_t o = 0; o < G.cols(); ++o) {
                        Z(t, o) *= G(t, o);
                        G(t, o) *= row_factor(magnitude_[o], norms[o]);
                      }
                    }
                  });
  std::vector<float> sums(out());
  add_column_sums(Z.view(), sums, pool);
  for (std::size_t o = 0; o < out(); ++o) {
    if (norms[o] > 0) d_magnitude_[o] += static_cast<float>(sums[o] / norms[o]);
  }
  return G;
}

void LoraLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                              MatrixView<float> dX, ThreadPool& pool) {
  if (X.rows() == 0) return;
  MatrixF H(X.rows(), A_.rows());
  matmul_transposed(X, A_.view(), H.view(), pool);
  MatrixF scaled;
  ConstMatrixView G = dY;
  if (!magnitude_.empty()) {
    scaled = scale_gradient(X, H.view(), dY, pool);
    G = std::as_const(scaled).view();
  }
  add_cross_gram(G, H.view(), scaling_, dB_.view(), pool);
  MatrixF dH(X.rows(), A_.rows());
  matmul(G, B_.view(), dH.view(), pool, scaling_);
  add_cross_gram(dH.view(), X, 1, dA_.view(), pool);
  if (dX.size() == 0) return;
  matmul(dH.view(), A_.view(), dX, pool, 1, Accumulate::kAdd);
  base_.run_backward(X, G, dX, pool);
}

void LoraLinear::list_parameters(const std::string& name,
                                 std::vector<Parameter>& to) {
  to.push_back({.name = name + ".lora_A.weight",
                .shape = {A_.rows(), A_.cols()},
                .value = A_.data(),
                .gradient = dA_.data()});
  to.push_back({.name = name + ".lora_B.weight",
                .shape = {B_.rows(), B_.cols()},
                .value = B_.data(),
                .gradient = dB_.data()});
  if (magnitude_.empty()) return;
  to.push_back({.name = name + ".lora_magnitude_vector",
                .shape = {magnitude_.size()},
                .value = magnitude_,
                .gradient = d_magnitude_});
}

std::size_t LoraLinear::bytes() const {
  return base_.bytes() +
         sizeof(float) *
             (bias_.size() + 2 * (A_.size() + B_.size() + magnitude_.size()));
}

}  // namespace llmpress
