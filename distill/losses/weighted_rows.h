// The loop over rows that all losses of logits share.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "compress/core/parallel.h"

namespace llmpress {

// Memory of one task, kept from row to row.
class Scratch {
 public:
  // Of any content.
  std::span<float> floats(std::size_t count) {
    if (count > size_) {
      data_ = std::make_unique_for_overwrite<float[]>(count);
      size_ = count;
    }
    return {data_.get(), count};
  }

 private:
  std::unique_ptr<float[]> data_{};
  std::size_t size_ = 0;
};

// The loss of one row, which also adds its gradient.
using RowLoss = std::function<double(std::size_t row, Scratch& scratch)>;

// sum_r row_weights[r] loss(r) in the order of the rows. Rows of weight 0 are
// not asked for. Tasks are cut by the numbers of rows and columns alone.
double sum_weighted_rows(std::span<const float> row_weights,
                         std::size_t columns, ThreadPool& pool,
                         const RowLoss& loss);

}  // namespace llmpress
