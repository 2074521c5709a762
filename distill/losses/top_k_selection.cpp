#include "distill/losses/top_k_selection.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

void check_row(std::span<const float> row, std::size_t r) {
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (row[i] < std::numeric_limits<float>::infinity()) continue;
    fail(ErrorCode::kNumeric,
         "the teacher's logit of token {} in row {} is {}, wanted a number", i,
         r, row[i]);
  }
}

float log_of_others(std::span<const float> row,
                    std::span<const std::uint32_t> others, float temperature) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const std::uint32_t i : others) {
    largest = std::max(largest, double{row[i]} / double{temperature});
  }
  if (!std::isfinite(largest)) return static_cast<float>(largest);
  double sum = 0;
  for (const std::uint32_t i : others) {
    sum += std::exp(double{row[i]} / double{temperature} - largest);
  }
  return static_cast<float>(largest + std::log(sum));
}

}  // namespace

TopKRows select_top_k(ConstMatrixView T, std::size_t k, float temperature,
                      ThreadPool& pool) {
  assert(k > 0 && k <= T.cols());
  TopKRows found{Matrix<std::uint32_t>(T.rows(), k), MatrixF(T.rows(), k),
                 std::vector<float>(T.rows())};
  pool.for_each(T.rows(), [&](std::size_t r) {
    const auto row = T.row(r);
    check_row(row, r);
    std::vector<std::uint32_t> order(row.size());
    std::iota(order.begin(), order.end(), std::uint32_t{0});
    const auto before = [&](std::uint32_t a, std::uint32_t b) {
      return row[a] != row[b] ? row[a] > row[b] : a < b;
    };
    const auto middle = order.begin() + static_cast<std::ptrdiff_t>(k);
    std::nth_element(order.begin(), middle - 1, order.end(), before);
    std::sort(order.begin(), middle, before);
    // Summed in the order of the tokens, whatever the selection left.
    std::sort(middle, order.end());
    for (std::size_t i = 0; i < k; ++i) {
      found.ids(r, i) = order[i];
      found.values(r, i) = row[order[i]];
    }
    found.log_rest[r] =
        log_of_others(row, std::span(order).subspan(k), temperature);
  });
  return found;
}

}  // namespace llmpress
