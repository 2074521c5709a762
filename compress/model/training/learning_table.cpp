#include "compress/model/training/learning_table.h"

#include <cassert>

namespace llmpress {
namespace {

constexpr std::size_t kColumnsPerTask = 64;

}  // namespace

// By columns: a row that comes twice is added to in one order.
void add_to_numbered_rows(std::span<const std::uint32_t> numbers,
                          ConstMatrixView d, float factor, MatrixView<float> to,
                          ThreadPool& pool) {
  assert(d.rows() == numbers.size() && d.cols() == to.cols());
  pool.for_ranges(d.cols(), kColumnsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t t = 0; t < numbers.size(); ++t) {
                      const auto from = d.row(t);
                      const auto row = to.row(numbers[t]);
                      for (std::size_t c = begin; c < end; ++c) {
                        row[c] += factor * from[c];
                      }
                    }
                  });
}

}  // namespace llmpress
