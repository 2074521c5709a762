// Rounding to nearest while no more than a few rows of W are in float32: they are
// read, rounded, measured and forgotten in the cache. The weight and what is said
// of it are those of quantize_weight(), bit for bit.
#pragma once

#include <string_view>

#include "compress/core/packed/row_source.h"
#include "quantizers/method.h"
#include "quantizers/weight_error.h"

namespace llmpress {

struct RowsRounded {
  QuantizeResult result{};
  RowTotals totals{};
};

// For a method that rounds rows of this width apart
// (QuantizerMethod::rounds_rows_apart). `stats` may be null, where the input's grid
// needs none. Throws as quantize_weight() does.
RowsRounded quantize_rows(const RowSource& W, const QuantizeConfig& config,
                          const InputStats* stats, std::string_view name,
                          ThreadPool& pool);

}  // namespace llmpress
