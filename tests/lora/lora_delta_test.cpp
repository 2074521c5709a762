#include "lora/lora_delta.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "compress/core/error.h"
#include "tests/lora/random_lora.h"

namespace llmpress {
namespace {

ErrorCode code_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kIo;  // none of lora's
}

void expect_within(const MatrixF& found, const Reference& wanted,
                   const std::string& what) {
  for (std::size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(found.data()[i], wanted.value.data()[i], wanted.bound.data()[i])
        << what << " at " << i;
  }
}

TEST(LoraDelta, MergesAsComputedByHand) {
  ThreadPool pool(1);
  MatrixF W({1, 2, 3, 4}, 2, 2);
  const LoraDelta delta{
      .A = {{1, -1}, 1, 2}, .B = {{2, 0.5f}, 2, 1}, .scaling = 0.5};
  merge_in_place(delta, 1, W.view(), pool);
  EXPECT_EQ(W(0, 0), 2);
  EXPECT_EQ(W(0, 1), 1);
  EXPECT_EQ(W(1, 0), 3.25f);
  EXPECT_EQ(W(1, 1), 3.75f);
  merge_in_place(delta, -2, W.view(), pool);
  EXPECT_EQ(W(0, 0), 0);
  EXPECT_EQ(W(1, 1), 4.25f);
}

// Row 0 becomes (3, 4) of norm 5 and is brought to 10; row 1 is zero.
TEST(LoraDelta, GivesDoraRowsTheirMagnitudeAndLeavesZeroRows) {
  ThreadPool pool(1);
  const LoraDelta delta{
      .A = {{0, 4}, 1, 2}, .B = {{1, 0}, 2, 1}, .magnitude = {10, 7}};
  MatrixF W({3, 0, 0, 0}, 2, 2);
  EXPECT_EQ(dora_factors(delta, W.view(), pool), (std::vector<float>{2, 1}));
  MatrixF half = W;
  merge_in_place(delta, 1, W.view(), pool);
  EXPECT_TRUE(std::ranges::equal(W.data(), std::vector<float>{6, 8, 0, 0}));
  merge_in_place(delta, 0.5, half.view(), pool);
  EXPECT_TRUE(
      std::ranges::equal(half.data(), std::vector<float>{4.5f, 4, 0, 0}));
}

TEST(LoraDelta, MergesABiasScaledAsTheFactors) {
  const LoraDelta delta{.scaling = 0.5, .bias = {2, -4}};
  std::vector<float> b{1, 1};
  merge_bias_in_place(delta, 1, b);
  EXPECT_EQ(b, (std::vector<float>{2, -1}));
  merge_bias_in_place(delta, -2, b);
  EXPECT_EQ(b, (std::vector<float>{0, 3}));
  b.push_back(0);
  EXPECT_EQ(code_of([&] { merge_bias_in_place(delta, 1, b); }),
            ErrorCode::kInvalidArgument);
}

enum class Defect { kNone, kIn, kOut, kRank, kMagnitude, kHalf, kNan };

void break_lora(Defect defect, LoraDelta& delta, Rng& rng) {
  const std::size_t r = delta.A.rows();
  const std::size_t in = delta.A.cols(), out = delta.B.rows();
  switch (defect) {
    case Defect::kNone:
      break;
    case Defect::kIn:
      delta.A = random_matrix(r, in + 1, rng);
      break;
    case Defect::kOut:
      delta.B = random_matrix(out + 1, r, rng);
      break;
    case Defect::kRank:
      delta.A = random_matrix(r + 1, in, rng);
      break;
    case Defect::kMagnitude:
      delta.magnitude.assign(out + 1, 1.0f);
      break;
    case Defect::kHalf:
      (rng.below(2) == 0 ? delta.A : delta.B) = MatrixF();
      break;
    case Defect::kNan:
      MatrixF& half = rng.below(2) == 0 ? delta.A : delta.B;
      half.data()[rng.below(half.size())] =
          rng.below(2) == 0 ? std::numeric_limits<float>::quiet_NaN()
                            : std::numeric_limits<float>::infinity();
      break;
  }
}

TEST(LoraDelta, IsExactOrRefusesForAThousandRandomAdapters) {
  Rng rng(5);
  ThreadPool pool(2);
  std::size_t refused = 0;
  for (int trial = 0; trial < 1000; ++trial) {
    const std::size_t out = 1 + rng.below(41), in = 1 + rng.below(53);
    const std::size_t r = 1 + rng.below(19);
    const bool stored_transposed = rng.below(3) == 0;
    LoraDelta delta = random_lora(out, in, r, rng.below(2) == 0, rng);
    delta.transposed = stored_transposed;
    // rsLoRA of alpha 16 in every other.
    if (trial % 2 == 0) delta.scaling = 16 / std::sqrt(static_cast<double>(r));
    const auto defect = static_cast<Defect>(rng.below(12));
    if (defect <= Defect::kNan) break_lora(defect, delta, rng);
    const MatrixF W = random_matrix(out, in, rng);
    MatrixF merged = stored_transposed ? transposed(W) : W;
    const auto merge = [&] { merge_in_place(delta, 1, merged.view(), pool); };
    if (defect == Defect::kNone || defect > Defect::kNan) {
      merge();
      expect_within(stored_transposed ? transposed(merged) : merged,
                    naive_merge(delta, W), "trial " + std::to_string(trial));
    } else {
      EXPECT_EQ(code_of(merge), defect == Defect::kNan
                                    ? ErrorCode::kNumeric
                                    : ErrorCode::kInvalidArgument)
          << "trial " << trial;
      ++refused;
    }
  }
  EXPECT_GT(refused, 400u);  // 500 expected, sigma 16
  EXPECT_LT(refused, 600u);
}

// Both ways add the same product, so what stays is one rounding of each sum.
TEST(LoraDelta, TakesOutWhatItPutIn) {
  Rng rng(6);
  ThreadPool pool(2);
  const MatrixF W = random_matrix(67, 41, rng);
  const LoraDelta delta = random_lora(67, 41, 8, false, rng);
  MatrixF there = W;
  merge_in_place(delta, 0.7, there.view(), pool);
  MatrixF back = there;
  unmerge_in_place(delta, 0.7, back.view(), pool);
  for (std::size_t i = 0; i < W.size(); ++i) {
    EXPECT_NE(there.data()[i], W.data()[i]);
    // The product itself may be rounded once more: |p| <= |W| + |there|.
    EXPECT_NEAR(
        back.data()[i], W.data()[i],
        2.1 * kUnit * (std::fabs(W.data()[i]) + std::fabs(there.data()[i])));
  }
}

TEST(LoraDelta, RefusesToUnmergeDora) {
  Rng rng(7);
  ThreadPool pool(1);
  MatrixF W = random_matrix(3, 4, rng);
  const LoraDelta delta = random_lora(3, 4, 2, true, rng);
  EXPECT_EQ(code_of([&] { unmerge_in_place(delta, 1, W.view(), pool); }),
            ErrorCode::kUnsupported);
}

TEST(LoraDelta, SaysTheChangeThatItMakes) {
  Rng rng(8);
  ThreadPool pool(2);
  for (const bool dora : {false, true}) {
    const MatrixF W = random_matrix(29, 31, rng);
    const LoraDelta delta = random_lora(29, 31, 4, dora, rng);
    MatrixF sum = change_of(delta, W.view(), pool);
    Reference wanted = naive_merge(delta, W);
    for (std::size_t i = 0; i < W.size(); ++i) {
      // The change and the sum are rounded once more each.
      wanted.bound.data()[i] +=
          3 * kUnit *
          (std::fabs(W.data()[i]) + std::fabs(wanted.value.data()[i]));
      sum.data()[i] += W.data()[i];
    }
    expect_within(sum, wanted, dora ? "DoRA" : "LoRA");
  }
}

TEST(LoraDelta, GivesTheSameBytesAtAnyThreadCount) {
  Rng rng(9);
  for (const bool stored_transposed : {false, true}) {
    LoraDelta delta = random_lora(150, 130, 16, true, rng);
    delta.transposed = stored_transposed;
    const MatrixF W = stored_transposed ? random_matrix(130, 150, rng)
                                        : random_matrix(150, 130, rng);
    ThreadPool one(1), three(3);
    MatrixF a = W, b = W;
    merge_in_place(delta, 1, a.view(), one);
    merge_in_place(delta, 1, b.view(), three);
    EXPECT_TRUE(std::ranges::equal(a.data(), b.data()));
  }
}

}  // namespace
}  // namespace llmpress
