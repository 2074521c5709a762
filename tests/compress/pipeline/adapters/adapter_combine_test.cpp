// Several adapters in one model, against their definitions.
#include <cmath>
#include <functional>

#include "tests/compress/pipeline/adapters/adapter_test_base.h"

namespace llmpress {
namespace {

class AdapterCombining : public AdapterTest {};

TEST_F(AdapterCombining, SumsChangesOfTheBaseWhateverTheOrder) {
  const LoraDelta one = delta(kQ0, 2, 2.0, true);
  const LoraDelta two = delta(kQ0, 3, 2.0, true);
  const auto a = AdapterFiles(R"("r": 2, "lora_alpha": 4, "use_dora": true)")
                     .linear(kQ0, one)
                     .write(folder("a"));
  const auto b = AdapterFiles(R"("r": 3, "lora_alpha": 6, "use_dora": true)")
                     .linear(kQ0, two)
                     .write(folder("b"));
  const MatrixF& W = tensors_.at(kQ0 + ".weight");
  const Reference first = naive_merge(one, W), second = naive_merge(two, W);
  for (const bool swapped : {false, true}) {
    const MatrixF found = weight(*(swapped ? merged({{b, 0.25}, {a, 0.5}})
                                           : merged({{a, 0.5}, {b, 0.25}})),
                                 kQ0);
    for (std::size_t o = 0; o < W.rows(); ++o) {
      for (std::size_t i = 0; i < W.cols(); ++i) {
        const double w = W(o, i);
        const double wanted =
            w + 0.5 * (first.value(o, i) - w) + 0.25 * (second.value(o, i) - w);
        const double bound = first.bound(o, i) + second.bound(o, i) +
                             8 * kUnit * (std::fabs(w) + std::fabs(wanted));
        ASSERT_NEAR(found(o, i), wanted, bound);
      }
    }
  }
}

// TIES of two changes by its definition: trim, elect, disjoint mean.
double ties_at(double a, double b, double wa, double wb) {
  const bool plus = a + b >= 0;
  double sum = 0, count = 0;
  for (const auto& [d, w] : {std::pair(a, wa), std::pair(b, wb)}) {
    if (d == 0 || (d > 0) != plus) continue;
    sum += w * d;
    count += 1;
  }
  return count == 0 ? 0 : sum / count;
}

TEST_F(AdapterCombining, CombinesByTiesAsDefined) {
  const LoraDelta one = delta(kQ0, 2, 2.0), two = delta(kQ0, 3, 2.0);
  const auto a = AdapterFiles(R"("r": 2, "lora_alpha": 4)")
                     .linear(kQ0, one)
                     .write(folder("a"));
  const auto b = AdapterFiles(R"("r": 3, "lora_alpha": 6)")
                     .linear(kQ0, two)
                     .write(folder("b"));
  const MatrixF& W = tensors_.at(kQ0 + ".weight");
  const MatrixF zero(W.rows(), W.cols());
  const auto trimmed = [&](const LoraDelta& delta) {
    Matrix<double> D = naive_merge(delta, zero).value;
    std::vector<double> sizes;
    for (const double d : D.data()) sizes.push_back(std::fabs(d));
    std::ranges::sort(sizes, std::greater<>());
    const double last = sizes[static_cast<std::size_t>(
                                  0.3 * static_cast<double>(sizes.size())) -
                              1];
    for (double& d : D.data()) {
      // Between two sizes, so that rounding cannot move an element across.
      if (std::fabs(d) < last * (1 - 1e-6)) d = 0;
    }
    return D;
  };
  const Matrix<double> x = trimmed(one), y = trimmed(two);
  const MatrixF found =
      weight(*merged({{a, 1.5}, {b, 0.5}}, {.method = CombineMethod::kTiesSvd,
                                            .density = 0.3,
                                            .svd_rank = 1000}),
             kQ0);
  for (std::size_t i = 0; i < W.size(); ++i) {
    const double wanted =
        W.data()[i] + ties_at(x.data()[i], y.data()[i], 1.5, 0.5);
    ASSERT_NEAR(found.data()[i], wanted, 1e-5) << i;
  }
}

TEST_F(AdapterCombining, CombinesByDareFromSeedAndPositionAlone) {
  const LoraDelta one = delta(kQ0, 2, 2.0);
  const auto a = AdapterFiles(R"("r": 2, "lora_alpha": 4)")
                     .linear(kQ0, one)
                     .write(folder("a"));
  const MatrixF& W = tensors_.at(kQ0 + ".weight");
  const Reference D = naive_merge(one, MatrixF(W.rows(), W.cols()));
  CombineConfig dare{.method = CombineMethod::kDareLinearSvd,
                     .density = 0.5,
                     .svd_rank = 1000,
                     .seed = 1};
  const MatrixF found = weight(*merged({{a, 1}, {a, 0}}, dare), kQ0);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < W.size(); ++i) {
    if (found.data()[i] == W.data()[i]) continue;
    ++kept;
    ASSERT_NEAR(found.data()[i], W.data()[i] + 2 * D.value.data()[i], 1e-5);
  }
  // Binomial(576, 1/2): five deviations of 12.
  EXPECT_NEAR(static_cast<double>(kept), static_cast<double>(W.size()) / 2, 60);
  const MatrixF again = weight(*merged({{a, 1}, {a, 0}}, dare), kQ0);
  EXPECT_TRUE(std::ranges::equal(again.data(), found.data()));
  dare.seed = 2;
  const MatrixF other = weight(*merged({{a, 1}, {a, 0}}, dare), kQ0);
  EXPECT_FALSE(std::ranges::equal(other.data(), found.data()));
}

}  // namespace
}  // namespace llmpress
