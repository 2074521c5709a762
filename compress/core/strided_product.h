// Small products of matrices that lie inside larger ones (the heads of a row),
// by one thread: for callers that share work between threads themselves.
#pragma once

#include <cstddef>

#include "compress/core/linalg.h"
#include "compress/core/matrix.h"

namespace llmpress {

// Rows of `cols` floats, each `stride` floats after the one before.
template <class T>
struct StridedView {
  T* data = nullptr;
  std::size_t rows = 0, cols = 0, stride = 0;

  // Rows [begin, begin + count).
  StridedView rows_slice(std::size_t begin, std::size_t count) const {
    return {data + begin * stride, count, cols, stride};
  }
};
using StridedIn = StridedView<const float>;
using StridedOut = StridedView<float>;

// Columns [first, first + cols) of X.
template <class T>
StridedView<T> columns_of(MatrixView<T> X, std::size_t first,
                          std::size_t cols) {
  return {X.data().data() + first, X.rows(), cols, X.cols()};
}
inline StridedIn as_input(const StridedOut& A) {
  return {A.data, A.rows, A.cols, A.stride};
}

// C [m, n] (+)= alpha A [m, k] B^T, B [n, k].
void multiply_transposed(StridedIn A, StridedIn B, StridedOut C, float alpha,
                         Accumulate mode);
// C [m, n] (+)= alpha A [m, k] B [k, n].
void multiply(StridedIn A, StridedIn B, StridedOut C, float alpha,
              Accumulate mode);
// C [m, n] (+)= alpha A^T B, A [k, m], B [k, n].
void multiply_first_transposed(StridedIn A, StridedIn B, StridedOut C,
                               float alpha, Accumulate mode);

}  // namespace llmpress
