// Rows of segments, one after another, each behind as many rows of something
// that stands before it.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/matrix.h"
#include "compress/model/ops/op_context.h"

namespace llmpress {

class RowsBefore {
 public:
  // `rows` of them before every segment, which must outlive this.
  RowsBefore(std::span<const Segment> segments, std::size_t rows)
      : segments_(segments), before_(rows) {}

  // [all rows, columns]
  MatrixF zeros(std::size_t columns) const;
  // X [the segments' rows, columns] with `before` [rows, columns] in front of
  // every segment; empty: zeros.
  MatrixF join(ConstMatrixView X, ConstMatrixView before = {}) const;
  // Adds the segments' own rows to `to`, those in front of them to `before` in
  // the order of the segments; either may be empty: not wanted.
  void add_apart(const MatrixF& joined, MatrixView<float> to,
                 MatrixView<float> before) const;

 private:
  std::span<const Segment> segments_;
  std::size_t before_;
};

}  // namespace llmpress
