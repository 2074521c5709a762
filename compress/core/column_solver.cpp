#include "compress/core/column_solver.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"

namespace llmpress {
namespace {

// Rows that one thread carries through a block: 128 columns of them fill the
// 32 KiB of the smallest first-level cache.
constexpr std::size_t kChunkRows = 64;

// What the rows of one chunk need while a block [begin, end) is solved. All
// buffers are [end - begin, rows]: transposed, so that loops run over rows.
struct Chunk {
  std::size_t begin_row, rows, begin, end;
  std::vector<float> values, errors, originals;
};

Chunk load(ConstMatrixView W, std::size_t begin_row, std::size_t rows,
           std::size_t begin, std::size_t end) {
  Chunk chunk{begin_row, rows, begin, end, {}, {}, {}};
  chunk.values.resize((end - begin) * rows);
  chunk.errors.resize(chunk.values.size());
  for (std::size_t r = 0; r < rows; ++r) {
    const auto row = W.row(begin_row + r).subspan(begin, end - begin);
    for (std::size_t j = 0; j < row.size(); ++j) {
      chunk.values[j * rows + r] = row[j];
    }
  }
  return chunk;
}

void store(std::span<const float> values, std::size_t begin_row,
           std::size_t rows, std::size_t begin, std::size_t columns,
           MatrixView<float> to) {
  for (std::size_t r = 0; r < rows; ++r) {
    const auto row = to.row(begin_row + r).subspan(begin, columns);
    for (std::size_t j = 0; j < columns; ++j) row[j] = values[j * rows + r];
  }
}

// targets[j] += factors[j] * source for every column j of `rows` values.
void add_outer(std::span<const float> source, std::span<const float> factors,
               float sign, float* targets) {
  const std::size_t rows = source.size();
  const float* __restrict from = source.data();
  for (const float factor : factors) {
    const float f = sign * factor;
    float* __restrict to = targets;
    for (std::size_t r = 0; r < rows; ++r) to[r] += f * from[r];
    targets += rows;
  }
}

void solve_chunk(Chunk& chunk, ConstMatrixView U, ConstMatrixView P,
                 const ColumnCompressor& compressor,
                 std::span<double> row_errors) {
  const std::size_t rows = chunk.rows;
  std::vector<float> q(rows);
  if (P.size() != 0) chunk.originals = chunk.values;
  for (std::size_t i = chunk.begin; i < chunk.end; ++i) {
    const std::span<float> rest =
        std::span(chunk.values).subspan((i - chunk.begin) * rows);
    const std::span<float> w = rest.first(rows);
    const std::span<float> e =
        std::span(chunk.errors).subspan((i - chunk.begin) * rows, rows);
    std::copy(w.begin(), w.end(), q.begin());
    compressor.compress({i, chunk.end, chunk.begin_row, rows, rest}, q);
    const float d = U(i, i);
    for (std::size_t r = 0; r < rows; ++r) {
      e[r] = (w[r] - q[r]) / d;
      const auto wide = static_cast<double>(e[r]);
      row_errors[r] += wide * wide;
    }
    const std::size_t later = chunk.end - i - 1;
    add_outer(e, U.row(i).subspan(i + 1, later), -1.0f, w.data() + rows);
    if (P.size() != 0) {
      add_outer(w, P.row(i).subspan(i + 1, later), 1.0f, w.data() + rows);
      std::copy(w.begin(), w.end(),
                chunk.originals.begin() +
                    static_cast<std::ptrdiff_t>((i - chunk.begin) * rows));
    }
    std::copy(q.begin(), q.end(), w.begin());
  }
}

void check_inputs(ConstMatrixView W, ConstMatrixView U,
                  const ColumnCompressor& compressor,
                  const ColumnSolverOptions& options) {
  const std::size_t in = W.cols();
  assert(U.rows() == in && U.cols() == in);
  assert(options.P.size() == 0 ||
         (options.P.rows() == in && options.P.cols() == in));
  assert(compressor.compress && options.block_size > 0);
  (void)compressor, (void)options;
  for (std::size_t i = 0; i < in; ++i) {
    if (!(U(i, i) > 0 && std::isfinite(U(i, i)))) {
      fail(
          ErrorCode::kNumeric,
          "column solver: diagonal element {} of the inverse's factor is {:g}, "
          "wanted a positive number",
          i, U(i, i));
    }
  }
}

}  // namespace

ColumnCompressor in_sequence(ColumnCompressor first, ColumnCompressor second) {
  return {.begin_block =
              [a = first.begin_block, b = second.begin_block](
                  std::size_t begin, std::size_t end, ConstMatrixView W) {
                if (a) a(begin, end, W);
                if (b) b(begin, end, W);
              },
          .compress =
              [a = std::move(first.compress), b = std::move(second.compress)](
                  const ColumnWindow& window, std::span<float> column) {
                if (a) a(window, column);
                if (b) b(window, column);
              }};
}

ColumnSolution solve_columns_in_place(MatrixView<float> W, ConstMatrixView U,
                                      const ColumnCompressor& compressor,
                                      const ColumnSolverOptions& options,
                                      ThreadPool& pool) {
  check_inputs(W, U, compressor, options);
  const std::size_t out = W.rows(), in = W.cols();
  ColumnSolution solution;
  solution.row_errors.resize(out);
  for (std::size_t begin = 0; begin < in; begin += options.block_size) {
    const std::size_t end = std::min(begin + options.block_size, in);
    const std::size_t columns = end - begin;
    if (compressor.begin_block) compressor.begin_block(begin, end, W);
    MatrixF errors(out, columns);
    MatrixF originals;
    if (options.P.size() != 0) originals = MatrixF(out, columns);
    pool.for_ranges(out, kChunkRows, [&](std::size_t r0, std::size_t r1) {
      Chunk chunk = load(W, r0, r1 - r0, begin, end);
      solve_chunk(chunk, U, options.P, compressor,
                  std::span(solution.row_errors).subspan(r0, r1 - r0));
      store(chunk.values, r0, r1 - r0, begin, columns, W);
      store(chunk.errors, r0, r1 - r0, 0, columns, errors.view());
      if (!originals.empty()) {
        store(chunk.originals, r0, r1 - r0, 0, columns, originals.view());
      }
    });
    if (end == in) break;
    matmul_tail(errors.view(), U.rows_slice(begin, columns), end, W, pool,
                -1.0f);
    if (!originals.empty()) {
      matmul_tail(originals.view(), options.P.rows_slice(begin, columns), end,
                  W, pool, 1.0f);
    }
  }
  for (const double e : solution.row_errors) solution.squared_error += e;
  if (!std::isfinite(solution.squared_error)) {
    throw Error(ErrorCode::kNumeric,
                "column solver: the error is not finite; a weight or a "
                "compressed value overflowed");
  }
  return solution;
}

}  // namespace llmpress
