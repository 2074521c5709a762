// A table whose rows are read by their numbers and learn: an embedding.
#pragma once

#include <cstdint>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

class LearningTable {
 public:
  virtual ~LearningTable() = default;

  // As they run, [rows, width].
  virtual ConstMatrixView table() const = 0;
  // Adds factor * d[t] to the gradient of row numbers[t]; d [numbers, width].
  virtual void add_row_gradients(std::span<const std::uint32_t> numbers,
                                 ConstMatrixView d, float factor,
                                 ThreadPool& pool) = 0;
};

// to[numbers[t]] += factor * d[t], for every t in its order.
void add_to_numbered_rows(std::span<const std::uint32_t> numbers,
                          ConstMatrixView d, float factor, MatrixView<float> to,
                          ThreadPool& pool);

}  // namespace llmpress
