#include "compress/core/strided_product.h"

#include <cblas.h>

#include <algorithm>
#include <cassert>

#include "compress/core/blas.h"

namespace llmpress {
namespace {

int leading(std::size_t stride) {
  return blas_int(std::max<std::size_t>(stride, 1));
}

void product(CBLAS_TRANSPOSE transpose_a, CBLAS_TRANSPOSE transpose_b,
             std::size_t k, const StridedIn& A, const StridedIn& B,
             const StridedOut& C, float alpha, Accumulate mode) {
  if (C.rows == 0 || C.cols == 0) return;
  use_one_blas_thread();
  cblas_sgemm(CblasRowMajor, transpose_a, transpose_b, blas_int(C.rows),
              blas_int(C.cols), blas_int(k), alpha, A.data, leading(A.stride),
              B.data, leading(B.stride), mode == Accumulate::kAdd ? 1.0f : 0.0f,
              C.data, leading(C.stride));
}

}  // namespace

void multiply_transposed(StridedIn A, StridedIn B, StridedOut C, float alpha,
                         Accumulate mode) {
  assert(A.cols == B.cols && C.rows == A.rows && C.cols == B.rows);
  product(CblasNoTrans, CblasTrans, A.cols, A, B, C, alpha, mode);
}

void multiply(StridedIn A, StridedIn B, StridedOut C, float alpha,
              Accumulate mode) {
  assert(A.cols == B.rows && C.rows == A.rows && C.cols == B.cols);
  product(CblasNoTrans, CblasNoTrans, A.cols, A, B, C, alpha, mode);
}

void multiply_first_transposed(StridedIn A, StridedIn B, StridedOut C,
                               float alpha, Accumulate mode) {
  assert(A.rows == B.rows && C.rows == A.cols && C.cols == B.cols);
  product(CblasTrans, CblasNoTrans, A.rows, A, B, C, alpha, mode);
}

}  // namespace llmpress
