#include "compress/core/matrix_reuse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace llmpress {
namespace {

TEST(MatrixReuse, GivesBackTheMemoryOfAMatrixOfThatShape) {
  MatrixStore store;
  const MatrixReuse reuse(store);
  MatrixF X = unset_matrix(3, 5);
  const float* const memory = X.data().data();
  give_back(std::move(X));
  EXPECT_NE(unset_matrix(5, 3).data().data(), memory);
  EXPECT_EQ(unset_matrix(3, 5).data().data(), memory);
}

TEST(MatrixReuse, ClearsWhatIsAskedForAsZero) {
  ThreadPool pool(2);
  MatrixStore store;
  const MatrixReuse reuse(store);
  MatrixF X = unset_matrix(300, 400);
  std::ranges::fill(X.data(), 7.0f);
  give_back(std::move(X));
  const MatrixF zero = zero_matrix(300, 400, pool);
  EXPECT_EQ(std::ranges::count(zero.data(), 0.0f), 300 * 400);
}

TEST(MatrixReuse, CopiesAllElements) {
  ThreadPool pool(2);
  MatrixStore store;
  const MatrixReuse reuse(store);
  MatrixF X(300, 401);
  for (std::size_t i = 0; i < X.size(); ++i) {
    X.data()[i] = static_cast<float>(i);
  }
  EXPECT_TRUE(std::ranges::equal(copy_of(std::as_const(X).view(), pool).data(),
                                 X.data()));
}

// Else what comes from elsewhere in every step would pile up.
TEST(MatrixReuse, KeepsNoMoreThanWasTaken) {
  MatrixStore store;
  const MatrixReuse reuse(store);
  MatrixF X = unset_matrix(2, 2), foreign(2, 2);
  std::ranges::fill(foreign.data(), 7.0f);
  const float* const memory = X.data().data();
  give_back(std::move(X));
  give_back(std::move(foreign));
  const MatrixF first = unset_matrix(2, 2);
  EXPECT_EQ(first.data().data(), memory);
  MatrixF second = unset_matrix(2, 2);
  // Of a new matrix: zeros, where a kept one has what was in it.
  EXPECT_EQ(std::ranges::count(second.data(), 0.0f), 4);
}

TEST(MatrixReuse, EndsWithItsScope) {
  MatrixStore store;
  const float* memory = nullptr;
  {
    const MatrixReuse reuse(store);
    MatrixF X = unset_matrix(4, 4);
    std::ranges::fill(X.data(), 7.0f);
    memory = X.data().data();
    give_back(std::move(X));
  }
  const MatrixF X = unset_matrix(4, 4);
  EXPECT_EQ(std::ranges::count(X.data(), 0.0f), 16);
  const MatrixReuse again(store);
  EXPECT_EQ(unset_matrix(4, 4).data().data(), memory);
}

}  // namespace
}  // namespace llmpress
