// Matrices that come and go by the thousand in the same few shapes, kept to be
// filled again: what is overwritten anyway need not be cleared first.
#pragma once

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// Matrices that nobody uses at the moment, by shape.
class MatrixStore {
 public:
  // [rows, cols] of any content.
  MatrixF take(std::size_t rows, std::size_t cols);
  // Keeps no more matrices of a shape than were taken.
  void give(MatrixF X);
  void clear() { shapes_.clear(); }

 private:
  struct Shape {
    std::vector<MatrixF> free{};
    std::size_t taken = 0;  // and not given back
  };
  std::map<std::pair<std::size_t, std::size_t>, Shape> shapes_{};
};

// While it lives, this thread's unset_matrix() and give_back() are the store's.
class MatrixReuse {
 public:
  explicit MatrixReuse(MatrixStore& store);
  ~MatrixReuse();
  MatrixReuse(const MatrixReuse&) = delete;
  MatrixReuse& operator=(const MatrixReuse&) = delete;

 private:
  MatrixStore* before_;
};

// [rows, cols] of any content, to be overwritten; without a store of zeros.
MatrixF unset_matrix(std::size_t rows, std::size_t cols);
// Of zeros, which the pool writes.
MatrixF zero_matrix(std::size_t rows, std::size_t cols, ThreadPool& pool);
// X, which is not wanted any more, for unset_matrix() to take; without a store
// it is freed.
void give_back(MatrixF X);
MatrixF copy_of(ConstMatrixView X, ThreadPool& pool);

}  // namespace llmpress
