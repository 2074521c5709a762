#include "distill/losses/weighted_rows.h"

#include <algorithm>
#include <vector>

namespace llmpress {
namespace {

// Some tens of microseconds of work.
constexpr std::size_t kElementsPerTask = 65536;

}  // namespace

double sum_weighted_rows(std::span<const float> row_weights,
                         std::size_t columns, ThreadPool& pool,
                         const RowLoss& loss) {
  std::vector<double> losses(row_weights.size());
  const std::size_t grain = std::max<std::size_t>(
      1, kElementsPerTask / std::max<std::size_t>(columns, 1));
  pool.for_ranges(row_weights.size(), grain,
                  [&](std::size_t begin, std::size_t end) {
                    Scratch scratch;
                    for (std::size_t r = begin; r < end; ++r) {
                      if (row_weights[r] != 0) losses[r] = loss(r, scratch);
                    }
                  });
  double sum = 0;
  for (std::size_t r = 0; r < losses.size(); ++r) {
    if (row_weights[r] != 0) sum += double{row_weights[r]} * losses[r];
  }
  return sum;
}

}  // namespace llmpress
