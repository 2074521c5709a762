#include "compress/core/packed_weight.h"

#include <cassert>

#include "compress/core/packed/packed_checker.h"

namespace llmpress {

std::size_t rows_of(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return w.out; }, weight);
}

std::size_t cols_of(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return w.in; }, weight);
}

MatrixF dequantize(const PackedWeight& weight) {
  MatrixF W(rows_of(weight), cols_of(weight));
  dequantize_rows(weight, 0, W.view());
  return W;
}

MatrixF dequantize(const PackedWeight& weight, ThreadPool& pool) {
  constexpr std::size_t kRows = 64;
  MatrixF W(rows_of(weight), cols_of(weight));
  pool.for_ranges(W.rows(), kRows, [&](std::size_t begin, std::size_t end) {
    dequantize_rows(weight, begin, W.view().rows_slice(begin, end - begin));
  });
  return W;
}

void dequantize_rows(const PackedWeight& weight, std::size_t begin_row,
                     MatrixView<float> rows) {
  assert(rows.cols() == cols_of(weight));
  assert(begin_row + rows.rows() <= rows_of(weight));
  std::visit(
      [&](const auto& w) {
        for (std::size_t r = 0; r < rows.rows(); ++r) {
          decode_row(w, begin_row + r, rows.row(r));
        }
      },
      weight);
}

std::size_t stored_bytes(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return stored_bytes(w); }, weight);
}

double bits_per_weight(const PackedWeight& weight) {
  return 8.0 * static_cast<double>(stored_bytes(weight)) /
         (static_cast<double>(rows_of(weight)) *
          static_cast<double>(cols_of(weight)));
}

std::string describe(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return describe(w); }, weight);
}

std::span<const float> scales_of(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return scales_of(w); }, weight);
}

DType scale_type_of(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return scale_type_of(w); }, weight);
}

void check(const PackedWeight& weight, std::string_view name) {
  const PackedChecker checker(name);
  std::visit(
      [&](const auto& w) {
        checker.shape(w.out, w.in);
        check(w, checker);
      },
      weight);
}

}  // namespace llmpress
