// The loop over rows that all losses of logits share.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "compress/core/parallel.h"

namespace llmpress {

// The loss of one row, which also adds its gradient. `scratch` is the thread's
// own, of any size and content.
using RowLoss =
    std::function<double(std::size_t row, std::vector<float>& scratch)>;

// sum_r row_weights[r] loss(r) in the order of the rows. Rows of weight 0 are
// not asked for. Tasks are cut by the numbers of rows and columns alone.
double sum_weighted_rows(std::span<const float> row_weights,
                         std::size_t columns, ThreadPool& pool,
                         const RowLoss& loss);

}  // namespace llmpress
