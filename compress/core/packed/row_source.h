// A weight that is decoded some rows at a time, for who need not hold it whole in
// float32.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"

namespace llmpress {

// W [rows, cols].
struct RowSource {
  std::size_t rows = 0, cols = 0;
  // Fills `to` with the rows of W from `first` on; from any thread.
  std::function<void(std::size_t first, MatrixView<float> to)> read{};
};

RowSource row_source(PackedWeight weight);

// A Linear whose weight is read so.
struct LinearRows {
  RowSource W{};
  LinearWeights rest{};  // all but the weight
};

LinearRows rows_of_linear(LinearWeights linear);

}  // namespace llmpress
