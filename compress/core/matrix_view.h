#pragma once

#include <cassert>
#include <cstddef>
#include <span>
#include <type_traits>

namespace llmpress {

// Non-owning row-major [rows, cols] view; rows are contiguous, never strided.
template <class T>
class MatrixView {
 public:
  MatrixView() = default;
  MatrixView(std::span<T> data, std::size_t rows, std::size_t cols)
      : data_(data), rows_(rows), cols_(cols) {
    assert(data.size() == rows * cols);
  }
  // A mutable view converts to a view of const elements.
  template <class U>
  requires(std::is_same_v<const U, T>) MatrixView(
      const MatrixView<U>& other)  // NOLINT(google-explicit-constructor)
      : data_(other.data()), rows_(other.rows()), cols_(other.cols()) {}

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::size_t size() const { return rows_ * cols_; }
  std::span<T> data() const { return data_; }
  std::span<T> row(std::size_t r) const {
    assert(r < rows_);
    return data_.subspan(r * cols_, cols_);
  }
  T& operator()(std::size_t r, std::size_t c) const {
    assert(r < rows_ && c < cols_);
    return data_[r * cols_ + c];
  }
  // Rows [begin, begin + count).
  MatrixView rows_slice(std::size_t begin, std::size_t count) const {
    return {data_.subspan(begin * cols_, count * cols_), count, cols_};
  }

 private:
  std::span<T> data_{};
  std::size_t rows_ = 0, cols_ = 0;
};

}  // namespace llmpress
