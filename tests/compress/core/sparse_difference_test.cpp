#include "compress/core/sparse_difference.h"

#include <gtest/gtest.h>

#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

// [[0, 2, 0], [-1, 0, 4]]
MatrixF example() {
  MatrixF D(2, 3);
  D(0, 1) = 2;
  D(1, 0) = -1;
  D(1, 2) = 4;
  return D;
}

std::vector<float> numbers(const MatrixF& X) {
  return {X.data().begin(), X.data().end()};
}

TEST(SparseDifference, HoldsWhatIsNotZero) {
  const SparseDifference sparse = sparse_difference(example().view());
  EXPECT_EQ(sparse.indices, (std::vector<std::uint32_t>{1, 3, 5}));
  EXPECT_EQ(sparse.values, (std::vector<float>{2, -1, 4}));
  MatrixF W(2, 3);
  add_in_place(sparse, 1, W.view());
  EXPECT_EQ(numbers(W), numbers(example()));
  add_in_place(sparse, -1, W.view());
  EXPECT_EQ(numbers(W), std::vector<float>(6));
  MatrixF other(3, 2);
  EXPECT_THROW(add_in_place(sparse, 1, other.view()), Error);
}

TEST(SparseDifference, MultipliesAsTheMatrixDoes) {
  const SparseDifference sparse = sparse_difference(example().view());
  MatrixF X(2, 3), Y(2, 2);
  for (std::size_t i = 0; i < X.size(); ++i) {
    X.data()[i] = static_cast<float>(i + 1);  // [[1, 2, 3], [4, 5, 6]]
  }
  Y(0, 0) = 10;
  ThreadPool pool(2);
  apply_in_place(sparse, 0.5, X.view(), Y.view(), pool);
  EXPECT_EQ(Y(0, 0), 10 + 2);            // 0.5 * 2 * 2
  EXPECT_EQ(Y(0, 1), 0.5f * (-1 + 12));  // 0.5 * (-1 + 4 * 3)
  EXPECT_EQ(Y(1, 0), 5);
  EXPECT_EQ(Y(1, 1), 0.5f * (-4 + 24));
}

TEST(SparseDifference, FindsTheMagnitudeThatSoManyReach) {
  const std::vector<float> a{0, 3, -1}, b{-5, 2, 0};
  const std::vector<std::span<const float>> parts{a, b};
  EXPECT_EQ(largest_magnitudes(parts, 1), 5);
  EXPECT_EQ(largest_magnitudes(parts, 2), 3);
  EXPECT_EQ(largest_magnitudes(parts, 3), 2);
  EXPECT_EQ(largest_magnitudes(parts, 4), 0);  // there are no more
}

}  // namespace
}  // namespace llmpress
