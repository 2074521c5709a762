#include "compress/core/packed/row_source.h"

#include <memory>

namespace llmpress {

RowSource row_source(PackedWeight weight) {
  const auto shared = std::make_shared<const PackedWeight>(std::move(weight));
  return {.rows = rows_of(*shared),
          .cols = cols_of(*shared),
          .read = [shared](std::size_t first, MatrixView<float> to) {
            dequantize_rows(*shared, first, to);
          }};
}

LinearRows rows_of_linear(LinearWeights linear) {
  LinearRows rows{.W = row_source(std::move(linear.weight))};
  linear.weight = {};
  rows.rest = std::move(linear);
  return rows;
}

}  // namespace llmpress
