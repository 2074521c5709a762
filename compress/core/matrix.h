#pragma once

#include <cassert>
#include <cstddef>
#include <utility>
#include <vector>

#include "compress/core/matrix_view.h"

namespace llmpress {

// Owning row-major [rows, cols], zero-initialised.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols)
      : data_(rows * cols), rows_(rows), cols_(cols) {}
  Matrix(std::vector<T> data, std::size_t rows, std::size_t cols)
      : data_(std::move(data)), rows_(rows), cols_(cols) {
    assert(data_.size() == rows * cols);
  }
  explicit Matrix(MatrixView<const T> view)
      : data_(view.data().begin(), view.data().end()),
        rows_(view.rows()),
        cols_(view.cols()) {}

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::size_t size() const { return data_.size(); }
  bool empty() const { return data_.empty(); }
  std::span<T> data() { return data_; }
  std::span<const T> data() const { return data_; }
  std::span<T> row(std::size_t r) { return view().row(r); }
  std::span<const T> row(std::size_t r) const { return view().row(r); }
  T& operator()(std::size_t r, std::size_t c) {
    assert(r < rows_ && c < cols_);
    return data_[r * cols_ + c];
  }
  const T& operator()(std::size_t r, std::size_t c) const {
    assert(r < rows_ && c < cols_);
    return data_[r * cols_ + c];
  }
  MatrixView<T> view() { return {data_, rows_, cols_}; }
  MatrixView<const T> view() const { return {data_, rows_, cols_}; }

 private:
  std::vector<T> data_{};
  std::size_t rows_ = 0, cols_ = 0;
};

using MatrixF = Matrix<float>;
using ConstMatrixView = MatrixView<const float>;

}  // namespace llmpress
