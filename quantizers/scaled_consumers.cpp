#include "quantizers/scaled_consumers.h"

#include <cassert>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "quantizers/method.h"
#include "quantizers/weight_error.h"

namespace llmpress {
namespace {

MatrixF difference(ConstMatrixView a, ConstMatrixView b) {
  assert(a.size() == b.size());
  MatrixF d(a.rows(), a.cols());
  for (std::size_t k = 0; k < d.size(); ++k) {
    d.data()[k] = a.data()[k] - b.data()[k];
  }
  return d;
}

double squared_norm(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) {
    sum += static_cast<double>(v) * static_cast<double>(v);
  }
  return sum;
}

}  // namespace

OutputObjective sample_objective(Consumers consumers, ConstMatrixView X,
                                 ThreadPool& pool) {
  return [consumers = std::move(consumers), X,
          &pool](const std::vector<MatrixF>& candidates) {
    double total = 0;
    for (std::size_t k = 0; k < consumers.size(); ++k) {
      const MatrixF D = difference(candidates[k].view(), consumers[k]);
      MatrixF Y(X.rows(), D.rows());
      matmul_transposed(X, D.view(), Y.view(), pool);
      total += squared_norm(Y.data());
    }
    return X.rows() == 0 ? 0.0 : total / static_cast<double>(X.rows());
  };
}

OutputObjective moment_objective(Consumers consumers, ConstMatrixView S,
                                 ThreadPool& pool) {
  return [consumers = std::move(consumers), S,
          &pool](const std::vector<MatrixF>& candidates) {
    double total = 0;
    for (std::size_t k = 0; k < consumers.size(); ++k) {
      total += output_error(consumers[k], candidates[k].view(), S, pool) *
               static_cast<double>(consumers[k].rows());
    }
    return total;
  };
}

MatrixF scale_columns(ConstMatrixView W, std::span<const float> s) {
  assert(s.size() == W.cols());
  MatrixF scaled(W);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) scaled(o, i) *= s[i];
  }
  return scaled;
}

MatrixF unscale_columns(ConstMatrixView W, std::span<const float> s) {
  assert(s.size() == W.cols());
  MatrixF unscaled(W);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) unscaled(o, i) /= s[i];
  }
  return unscaled;
}

void unscale_rows_in_place(MatrixView<float> W, std::span<const float> s) {
  assert(s.size() <= W.rows());
  const std::size_t first = W.rows() - s.size();
  for (std::size_t i = 0; i < s.size(); ++i) {
    for (float& w : W.row(first + i)) w /= s[i];
  }
}

void unscale_in_place(std::span<float> gain, std::span<const float> s) {
  assert(gain.size() == s.size());
  for (std::size_t i = 0; i < s.size(); ++i) gain[i] /= s[i];
}

void check_consumers(std::span<const ConstMatrixView> consumers,
                     std::span<const float> per_channel, const char* what) {
  for (const ConstMatrixView& W : consumers) {
    if (W.cols() == per_channel.size() && W.size() > 0) continue;
    fail(ErrorCode::kInvalidArgument,
         "{} has {} channels, the weight [{}, {}] wants one an input", what,
         per_channel.size(), W.rows(), W.cols());
  }
}

}  // namespace llmpress
