#include "lora/lora_apply.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <string>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"

namespace llmpress {
namespace {

constexpr std::size_t kGrain = 16;  // tokens of a chunk

[[noreturn]] void refuse(const std::string& what) {
  fail(ErrorCode::kInvalidArgument, "lora: {}", what);
}

void check_factors(const LoraDelta& delta) {
  if (delta.A.rows() != delta.B.cols() ||
      (!delta.bias.empty() && delta.bias.size() != delta.B.rows())) {
    refuse(formatted("A of rank {}, B of rank {} and their bias do not fit",
                     delta.A.rows(), delta.B.cols()));
  }
}

void check_base(const LoraDelta& delta, ConstMatrixView W) {
  if (W.size() == 0 && delta.magnitude.empty()) return;
  const std::size_t out = delta.transposed ? W.cols() : W.rows();
  const std::size_t in = delta.transposed ? W.rows() : W.cols();
  if (delta.B.rows() != out || delta.A.cols() != in) {
    refuse(formatted("A and B are for a weight [{}, {}], the base has [{}, {}]",
                     delta.B.rows(), delta.A.cols(), out, in));
  }
}

// Y = f o Y + H B^T + c, H [tokens, r].
void finish(const LoraOperator& lora, const MatrixF& H, MatrixView<float> Y,
            ThreadPool& pool) {
  const auto for_rows = [&](const auto& body) {
    pool.for_ranges(Y.rows(), kGrain, [&](std::size_t begin, std::size_t end) {
      for (std::size_t t = begin; t < end; ++t) body(Y.row(t));
    });
  };
  if (!lora.base_factors.empty()) {
    for_rows([&](std::span<float> y) {
      for (std::size_t o = 0; o < y.size(); ++o) y[o] *= lora.base_factors[o];
    });
  }
  matmul_transposed(H.view(), lora.B.view(), Y, pool, 1, Accumulate::kAdd);
  if (!lora.bias.empty()) {
    for_rows([&](std::span<float> y) {
      for (std::size_t o = 0; o < y.size(); ++o) y[o] += lora.bias[o];
    });
  }
}

void check_output(const LoraOperator& lora, std::size_t tokens,
                  ConstMatrixView Y) {
  if (Y.rows() == tokens && Y.cols() == lora.B.rows()) return;
  refuse(formatted("an output [{}, {}], wanted [{}, {}]", Y.rows(), Y.cols(),
                   tokens, lora.B.rows()));
}

}  // namespace

LoraOperator make_operator(const LoraDelta& delta, double weight,
                           ConstMatrixView W, ThreadPool& pool) {
  check_factors(delta);
  check_base(delta, W);
  const double scaling = weight * delta.scaling;
  LoraOperator lora{.A = delta.A, .B = delta.B};
  if (!delta.magnitude.empty())
    lora.base_factors = dora_factors(delta, W, pool);
  for (std::size_t o = 0; o < lora.B.rows(); ++o) {
    const double d = lora.base_factors.empty() ? 1 : lora.base_factors[o];
    for (float& b : lora.B.row(o)) b = static_cast<float>(scaling * d * b);
  }
  for (float& f : lora.base_factors) {
    f = static_cast<float>(1 - weight + weight * f);
  }
  for (const float b : delta.bias) {
    lora.bias.push_back(static_cast<float>(scaling * b));
  }
  return lora;
}

LoraOperator sum_of(std::vector<LoraOperator> operators) {
  assert(!operators.empty());
  if (operators.size() == 1) return std::move(operators.front());
  const std::size_t out = operators.front().B.rows();
  const std::size_t in = operators.front().A.cols();
  std::size_t rank = 0;
  for (const LoraOperator& lora : operators) rank += lora.A.rows();
  LoraOperator sum{.A = MatrixF(rank, in), .B = MatrixF(out, rank)};
  std::size_t at = 0;
  for (const LoraOperator& lora : operators) {
    assert(lora.A.cols() == in && lora.B.rows() == out);
    std::ranges::copy(lora.A.data(), sum.A.data().begin() +
                                         static_cast<std::ptrdiff_t>(at * in));
    for (std::size_t o = 0; o < out; ++o) {
      std::ranges::copy(lora.B.row(o),
                        sum.B.row(o).begin() + static_cast<std::ptrdiff_t>(at));
    }
    at += lora.A.rows();
    if (!lora.base_factors.empty()) sum.base_factors.resize(out, 1.0f);
    for (std::size_t o = 0; o < lora.base_factors.size(); ++o) {
      sum.base_factors[o] += lora.base_factors[o] - 1;
    }
    if (!lora.bias.empty()) sum.bias.resize(out);
    for (std::size_t o = 0; o < lora.bias.size(); ++o) {
      sum.bias[o] += lora.bias[o];
    }
  }
  return sum;
}

void apply_in_place(const LoraOperator& lora, ConstMatrixView X,
                    MatrixView<float> Y, ThreadPool& pool) {
  if (X.cols() != lora.A.cols()) {
    refuse(
        formatted("an input of width {}, wanted {}", X.cols(), lora.A.cols()));
  }
  check_output(lora, X.rows(), Y);
  MatrixF H(X.rows(), lora.A.rows());
  matmul_transposed(X, lora.A.view(), H.view(), pool);
  finish(lora, H, Y, pool);
}

void apply_embedding_in_place(const LoraOperator& lora,
                              std::span<const std::uint32_t> tokens,
                              MatrixView<float> Y, ThreadPool& pool) {
  check_output(lora, tokens.size(), Y);
  MatrixF H(tokens.size(), lora.A.rows());
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    if (tokens[t] >= lora.A.cols()) {
      refuse(formatted("token {}, but the adapter has {}", tokens[t],
                       lora.A.cols()));
    }
    for (std::size_t k = 0; k < H.cols(); ++k) H(t, k) = lora.A(k, tokens[t]);
  }
  finish(lora, H, Y, pool);
}

}  // namespace llmpress
