// Compresses a weight W [out, in] column by column and makes the columns still
// to come pay for the error of each: the solver that GPTQ (arXiv:2210.17323,
// Algorithm 1) and SparseGPT (arXiv:2301.00774, Algorithm 1) share. With
// H = E[x x^T] (up to a factor) and U upper triangular with H^-1 = U^T U,
// column i becomes q = compress(w), and
//
//   e = (w - q) / U_ii,    W[:, j] -= e U_ij  for all j > i
//
// in blocks of columns: within a block at once, beyond it as one matrix product
// (the lazy batch). Then W - Q = E U, so that the errors e [out, in] give the
// quadratic error of the result for nothing:
//
//   tr((W - Q) H (W - Q)^T) = sum of e^2
//
// What a column becomes is a callback's choice, so rounding to a grid, choosing
// a mask, and both in one pass are a few lines each:
//
//   ColumnCompressor to_integers{
//       .compress = [](const ColumnWindow&, std::span<float> column) {
//         for (float& w : column) w = std::nearbyint(w);
//       }};
//
// Cost: out * in * (in + block_size) multiply-adds; nearly all of it in the
// matrix products. Besides W: one [out, block_size].
#pragma once

#include <cassert>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// Columns [column, block_end) of rows [begin_row, begin_row + rows), with the
// errors of all columns before `column` paid.
struct ColumnWindow {
  std::size_t column = 0;     // that is being compressed
  std::size_t block_end = 0;  // of the lazy batch
  std::size_t begin_row = 0;  // of W
  std::size_t rows = 0;
  std::span<const float> values{};  // [block_end - column, rows]: transposed

  // The weights of column j, column <= j < block_end. [rows]
  std::span<const float> at(std::size_t j) const {
    assert(j >= column && j < block_end);
    return values.subspan((j - column) * rows, rows);
  }
};

struct ColumnCompressor {
  // Called before each block of columns [begin, end) on the calling thread,
  // with W [out, in] in which all columns from `begin` on are up to date and
  // those before it are compressed. May be empty.
  std::function<void(std::size_t begin, std::size_t end, ConstMatrixView W)>
      begin_block{};
  // `column` [window.rows] comes in as the weights of window.column (or what
  // another compressor made of them) and goes out compressed. Called for every
  // column in order; for different rows in any order and at the same time.
  std::function<void(const ColumnWindow& window, std::span<float> column)>
      compress{};
};

// `first`, then `second` on what it left: a mask and the rounding of what it
// keeps. Empty parts are skipped.
ColumnCompressor in_sequence(ColumnCompressor first, ColumnCompressor second);

struct ColumnSolverOptions {
  std::size_t block_size = 128;  // columns of a lazy batch
  // GPTAQ (arXiv:2504.02692): P [in, in] strictly upper triangular moves the
  // later columns towards the uncompressed model's output: W[:, j] += w P_ij,
  // w the weight that was compressed. Empty: none.
  ConstMatrixView P{};
};

struct ColumnSolution {
  double squared_error = 0;  // sum of e^2: the quadratic error, unless P
  std::vector<double> row_errors{};  // [out] that it is the sum of
};

// W [out, in] becomes Q. U [in, in]. Where the compressor looks at no other rows
// than its own, rows are the same if W is cut at multiples of kRowsOfTail
// (linalg.h). Throws Error(kNumeric) if a diagonal
// element of U is not positive or the error stops being finite.
ColumnSolution solve_columns_in_place(MatrixView<float> W, ConstMatrixView U,
                                      const ColumnCompressor& compressor,
                                      const ColumnSolverOptions& options,
                                      ThreadPool& pool);

}  // namespace llmpress
