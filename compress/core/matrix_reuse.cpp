#include "compress/core/matrix_reuse.h"

#include <algorithm>

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = std::size_t{1} << 16;

thread_local MatrixStore* current = nullptr;

}  // namespace

MatrixF MatrixStore::take(std::size_t rows, std::size_t cols) {
  Shape& shape = shapes_[{rows, cols}];
  ++shape.taken;
  if (shape.free.empty()) return MatrixF(rows, cols);
  MatrixF X = std::move(shape.free.back());
  shape.free.pop_back();
  return X;
}

void MatrixStore::give(MatrixF X) {
  const auto shape = shapes_.find({X.rows(), X.cols()});
  if (X.empty() || shape == shapes_.end() || shape->second.taken == 0) return;
  --shape->second.taken;
  shape->second.free.push_back(std::move(X));
}

MatrixReuse::MatrixReuse(MatrixStore& store)
    : before_(std::exchange(current, &store)) {}

MatrixReuse::~MatrixReuse() { current = before_; }

MatrixF unset_matrix(std::size_t rows, std::size_t cols) {
  return current == nullptr ? MatrixF(rows, cols) : current->take(rows, cols);
}

MatrixF zero_matrix(std::size_t rows, std::size_t cols, ThreadPool& pool) {
  if (current == nullptr) return MatrixF(rows, cols);
  MatrixF X = current->take(rows, cols);
  pool.for_ranges(X.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    std::fill_n(X.data().data() + begin, end - begin, 0.0f);
                  });
  return X;
}

void give_back(MatrixF X) {
  if (current != nullptr) current->give(std::move(X));
}

MatrixF copy_of(ConstMatrixView X, ThreadPool& pool) {
  if (current == nullptr) return MatrixF(X);
  MatrixF Y = current->take(X.rows(), X.cols());
  pool.for_ranges(X.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    std::copy_n(X.data().data() + begin, end - begin,
                                Y.data().data() + begin);
                  });
  return Y;
}

}  // namespace llmpress
