#include "lora/lora_apply.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/linalg.h"
#include "tests/lora/random_lora.h"

namespace llmpress {
namespace {

// Y [tokens, out] of x through base and adapter, and through the merged weight.
struct Outputs {
  MatrixF beside{};
  MatrixF merged{};
};

Outputs outputs(const LoraDelta& delta, double weight, const MatrixF& W,
                const MatrixF& X) {
  ThreadPool pool(2);
  Outputs y{MatrixF(X.rows(), W.rows()), MatrixF(X.rows(), W.rows())};
  matmul_transposed(X.view(), W.view(), y.beside.view(), pool);
  apply_in_place(make_operator(delta, weight, W.view(), pool), X.view(),
                 y.beside.view(), pool);
  MatrixF merged = W;
  merge_in_place(delta, weight, merged.view(), pool);
  matmul_transposed(X.view(), merged.view(), y.merged.view(), pool);
  std::vector<float> b(W.rows());
  merge_bias_in_place(delta, weight, b);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (std::size_t o = 0; o < b.size(); ++o) y.merged(t, o) += b[o];
  }
  return y;
}

// Sums of at most in + r + 4 roundings of terms of about these sizes.
double tolerance(const LoraDelta& delta, const MatrixF& W, const MatrixF& X) {
  double largest = 0;
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t t = 0; t < X.rows(); ++t) {
      double sum = 0;
      for (std::size_t i = 0; i < W.cols(); ++i) {
        double w = std::fabs(W(o, i));
        for (std::size_t k = 0; k < delta.A.rows(); ++k) {
          w += delta.scaling * std::fabs(delta.B(o, k) * delta.A(k, i));
        }
        sum += w * std::fabs(X(t, i));
      }
      largest = std::max(largest, sum);
    }
  }
  return 2 * kUnit * largest *
         static_cast<double>(W.cols() + delta.A.rows() + 4);
}

TEST(LoraApply, EqualsTheMergedWeight) {
  Rng rng(21);
  for (const bool dora : {false, true}) {
    for (const double weight : {1.0, 0.3}) {
      const MatrixF W = random_matrix(19, 37, rng);
      const MatrixF X = random_matrix(5, 37, rng);
      LoraDelta delta = random_lora(19, 37, 3, dora, rng);
      if (!dora) delta.bias.assign(19, 0.25f);
      const Outputs y = outputs(delta, weight, W, X);
      // DoRA shrinks rows here (|V| > m), so the bound holds for it as well.
      const double bound = tolerance(delta, W, X);
      EXPECT_LT(bound, 1e-2);
      for (std::size_t i = 0; i < y.merged.size(); ++i) {
        EXPECT_NEAR(y.beside.data()[i], y.merged.data()[i], bound)
            << "DoRA " << dora << ", weight " << weight;
      }
    }
  }
}

TEST(LoraApply, ComputesAsByHand) {
  ThreadPool pool(1);
  const LoraDelta delta{.A = {{1, 1}, 1, 2},
                        .B = {{2, 0}, 2, 1},
                        .scaling = 0.5,
                        .bias = {4, -2}};
  MatrixF Y({10, 20}, 1, 2);
  const MatrixF X({3, 4}, 1, 2);
  apply_in_place(make_operator(delta, 1, {}, pool), X.view(), Y.view(), pool);
  EXPECT_EQ(Y(0, 0), 10 + 7 + 2);
  EXPECT_EQ(Y(0, 1), 20 - 1);
}

TEST(LoraApply, LooksUpEmbeddingsAsMerged) {
  Rng rng(22);
  ThreadPool pool(2);
  const std::size_t vocab = 11, dim = 7;
  const std::vector<std::uint32_t> tokens{3, 10, 0, 3};
  for (const bool dora : {false, true}) {
    const MatrixF table = random_matrix(vocab, dim, rng);
    LoraDelta delta = random_lora(dim, vocab, 2, dora, rng);
    delta.transposed = true;
    MatrixF Y(tokens.size(), dim);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      std::ranges::copy(table.row(tokens[t]), Y.row(t).begin());
    }
    const LoraOperator lora = make_operator(delta, 1, table.view(), pool);
    apply_embedding_in_place(lora, tokens, Y.view(), pool);
    const Reference wanted = naive_merge(delta, transposed(table));
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      for (std::size_t o = 0; o < dim; ++o) {
        // Factors, scaled B and the sum are rounded once more each.
        EXPECT_NEAR(Y(t, o), wanted.value(o, tokens[t]),
                    3 * wanted.bound(o, tokens[t]));
      }
    }
    const std::vector<std::uint32_t> beyond{0, 11, 0, 0};
    EXPECT_THROW(apply_embedding_in_place(lora, beyond, Y.view(), pool), Error);
  }
}

TEST(LoraApply, RefusesShapesThatDoNotFit) {
  Rng rng(23);
  ThreadPool pool(1);
  LoraDelta delta = random_lora(4, 6, 2, false, rng);
  const MatrixF W(6, 4), X(1, 5), good_X(1, 6);
  MatrixF Y(1, 4), wide_Y(1, 5);
  EXPECT_THROW(make_operator(delta, 1, W.view(), pool), Error);
  const LoraOperator lora = make_operator(delta, 1, {}, pool);
  EXPECT_THROW(apply_in_place(lora, X.view(), Y.view(), pool), Error);
  EXPECT_THROW(apply_in_place(lora, good_X.view(), wide_Y.view(), pool), Error);
  delta.B = random_matrix(4, 3, rng);
  EXPECT_THROW(make_operator(delta, 1, {}, pool), Error);
}

TEST(LoraOperator, SumsAdaptersBesideOneBase) {
  Rng rng(21);
  ThreadPool pool(2);
  const MatrixF W = random_matrix(7, 9, rng), X = random_matrix(4, 9, rng);
  LoraDelta plain = random_lora(7, 9, 2, false, rng);
  plain.bias.assign(7, 0.5f);
  const LoraDelta dora = random_lora(7, 9, 3, true, rng);
  const auto one = [&] { return make_operator(plain, 0.5, W.view(), pool); };
  const auto two = [&] { return make_operator(dora, 0.75, W.view(), pool); };
  MatrixF Y(4, 7);
  matmul_transposed(X.view(), W.view(), Y.view(), pool);
  MatrixF first = Y, second = Y, both = Y;
  apply_in_place(one(), X.view(), first.view(), pool);
  apply_in_place(two(), X.view(), second.view(), pool);
  apply_in_place(sum_of({one(), two()}), X.view(), both.view(), pool);
  for (std::size_t i = 0; i < Y.size(); ++i) {
    const double wanted =
        static_cast<double>(first.data()[i]) + second.data()[i] - Y.data()[i];
    // Sums of at most 9 + 5 terms of a few units, a dozen roundings each.
    EXPECT_NEAR(both.data()[i], wanted, 64 * kUnit * 40);
  }
}

}  // namespace
}  // namespace llmpress
