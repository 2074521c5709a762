// Dense linear algebra in float32, on OpenBLAS. Every product is cut into tiles
// of fixed size, each computed by one thread, so results are the same at any
// thread count.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"

namespace llmpress {

enum class Accumulate { kOverwrite, kAdd };

// C [m, n] = A [m, k] B^T, B [n, k]: the shape of y = W x for rows of x.
void matmul_transposed(ConstMatrixView A, ConstMatrixView B,
                       MatrixView<float> C, ThreadPool& pool,
                       float alpha = 1.0f,
                       Accumulate mode = Accumulate::kOverwrite);

// C [m, n] = A [m, k] B [k, n].
void matmul(ConstMatrixView A, ConstMatrixView B, MatrixView<float> C,
            ThreadPool& pool, float alpha = 1.0f,
            Accumulate mode = Accumulate::kOverwrite);

// C [n, n] += alpha X^T X for X [rows, n]; the whole symmetric C is written.
void add_gram(ConstMatrixView X, float alpha, MatrixView<float> C,
              ThreadPool& pool);

// C [n, p] += alpha X^T Y for X [rows, n], Y [rows, p].
void add_cross_gram(ConstMatrixView X, ConstMatrixView Y, float alpha,
                    MatrixView<float> C, ThreadPool& pool);

// C[:, c0:] += alpha A B[:, c0:] with A [m, k], B [k, n], C [m, n]: the lazy
// batch update of GPTQ (arXiv:2210.17323, Eq. 4) without copying the tails. The
// same numbers if A and C are cut at multiples of kRowsOfTail.
inline constexpr std::size_t kRowsOfTail = 256;
void matmul_tail(ConstMatrixView A, ConstMatrixView B, std::size_t c0,
                 MatrixView<float> C, ThreadPool& pool, float alpha);

// The lower Cholesky factor of a symmetric positive definite A [n, n] (only the
// lower triangle is read); nullopt if a pivot is not positive and finite. The
// strictly upper part of the result is zero.
std::optional<MatrixF> cholesky_lower(ConstMatrixView A, ThreadPool& pool);

// Upper triangular U with A^-1 = U^T U, i.e. the transposed Cholesky factor of
// the inverse that GPTQ and SparseGPT use. Found from one factorization and one
// triangular inversion: with J the reversal of rows and columns, J A J = L L^T
// gives A = R R^T, R = J L J upper, so U = R^-1. All in A's own memory. nullopt
// as above. Several ranks share the work (all call this, with the same A) and
// get the same numbers as one; each sends about 4 n^2 (R - 1) / R bytes.
std::optional<MatrixF> inverse_cholesky_upper(MatrixF A, ThreadPool& pool,
                                              const Ranks& ranks = {});

// X of A X = B for symmetric positive definite A [n, n], B [n, m]; nullopt if A
// cannot be factored.
std::optional<MatrixF> solve_spd(ConstMatrixView A, ConstMatrixView B,
                                 ThreadPool& pool);

// Thin singular value decomposition A [m, n] = U diag(s) V^T, s descending.
struct Svd {
  MatrixF U;             // [m, k], k = min(m, n)
  std::vector<float> s;  // [k]
  MatrixF V;             // [n, k]
};
Svd thin_svd(ConstMatrixView A);

// The OpenBLAS kernel set in effect, e.g. "SkylakeX".
std::string blas_core_name();

}  // namespace llmpress
