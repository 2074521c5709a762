#include "pruning/unit_selection.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"

namespace llmpress {

std::size_t kept_count(std::size_t units, double fraction,
                       std::size_t multiple_of) {
  if (!(fraction >= 0 && fraction < 1) || multiple_of == 0) {
    fail(ErrorCode::kInvalidArgument,
         "units to remove: found a fraction of {} and multiples of {}, wanted "
         "[0, 1) and 1 or more",
         fraction, multiple_of);
  }
  if (units == 0) return 0;
  // A millionth of a unit: 0.3 of 10 units is 3 although 0.3 is not exact.
  const auto removed =
      static_cast<std::size_t>(static_cast<double>(units) * fraction + 1e-6);
  const std::size_t kept = std::max<std::size_t>(1, units - removed);
  return std::min(units, ceil_div(kept, multiple_of) * multiple_of);
}

std::vector<std::size_t> keep_most_important(std::span<const double> importance,
                                             std::size_t count) {
  assert(count <= importance.size());
  for (std::size_t u = 0; u < importance.size(); ++u) {
    if (!std::isfinite(importance[u])) {
      fail(ErrorCode::kNumeric, "importance of unit {} is not a finite number",
           u);
    }
  }
  std::vector<std::size_t> order(importance.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, std::ranges::greater{},
                           [&](std::size_t u) { return importance[u]; });
  order.resize(count);
  std::ranges::sort(order);
  return order;
}

std::vector<std::size_t> expand_units(std::span<const std::size_t> units,
                                      std::size_t width) {
  std::vector<std::size_t> indices;
  indices.reserve(units.size() * width);
  for (const std::size_t u : units) {
    for (std::size_t k = 0; k < width; ++k) indices.push_back(u * width + k);
  }
  return indices;
}

std::vector<std::size_t> complement(std::span<const std::size_t> kept,
                                    std::size_t count) {
  assert(std::ranges::is_sorted(kept));
  std::vector<std::size_t> rest;
  auto next = kept.begin();
  for (std::size_t i = 0; i < count; ++i) {
    if (next != kept.end() && *next == i) {
      ++next;
    } else {
      rest.push_back(i);
    }
  }
  return rest;
}

MatrixF select_rows(ConstMatrixView W, std::span<const std::size_t> rows) {
  MatrixF selected(rows.size(), W.cols());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::ranges::copy(W.row(rows[r]), selected.row(r).begin());
  }
  return selected;
}

MatrixF select_columns(ConstMatrixView W,
                       std::span<const std::size_t> columns) {
  MatrixF selected(W.rows(), columns.size());
  for (std::size_t r = 0; r < W.rows(); ++r) {
    const auto from = W.row(r);
    const auto to = selected.row(r);
    for (std::size_t c = 0; c < columns.size(); ++c) {
      assert(columns[c] < from.size());
      to[c] = from[columns[c]];
    }
  }
  return selected;
}

std::vector<float> select_values(std::span<const float> values,
                                 std::span<const std::size_t> indices) {
  std::vector<float> selected;
  selected.reserve(indices.size());
  for (const std::size_t i : indices) {
    assert(i < values.size());
    selected.push_back(values[i]);
  }
  return selected;
}

}  // namespace llmpress
