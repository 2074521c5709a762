#include "compress/model/ops/rows_before.h"

#include <algorithm>

namespace llmpress {
namespace {

void add(ConstMatrixView from, MatrixView<float> to) {
  float* const sum = to.data().data();
  const auto d = from.data();
  for (std::size_t i = 0; i < d.size(); ++i) sum[i] += d[i];
}

// body(first row of the segment, its first joined row, its rows), in order.
template <class Body>
void visit(std::span<const Segment> segments, std::size_t before,
           const Body& body) {
  std::size_t first = 0, at = 0;
  for (const Segment& segment : segments) {
    body(first, at, segment.rows);
    first += segment.rows;
    at += before + segment.rows;
  }
}

}  // namespace

MatrixF RowsBefore::zeros(std::size_t columns) const {
  std::size_t rows = 0;
  for (const Segment& segment : segments_) rows += before_ + segment.rows;
  return {rows, columns};
}

MatrixF RowsBefore::join(ConstMatrixView X, ConstMatrixView before) const {
  MatrixF joined = zeros(X.cols());
  visit(segments_, before_,
        [&](std::size_t first, std::size_t at, std::size_t rows) {
          std::ranges::copy(
              before.data(),
              joined.view().rows_slice(at, before_).data().begin());
          std::ranges::copy(
              X.rows_slice(first, rows).data(),
              joined.view().rows_slice(at + before_, rows).data().begin());
        });
  return joined;
}

void RowsBefore::add_apart(const MatrixF& joined, MatrixView<float> to,
                           MatrixView<float> before) const {
  visit(segments_, before_,
        [&](std::size_t first, std::size_t at, std::size_t rows) {
          if (to.size() != 0) {
            add(joined.view().rows_slice(at + before_, rows),
                to.rows_slice(first, rows));
          }
          if (before.size() == 0) return;
          add(joined.view().rows_slice(at, before_), before);
        });
}

}  // namespace llmpress
