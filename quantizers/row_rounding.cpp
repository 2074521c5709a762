#include "quantizers/row_rounding.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/packed/weight_rows.h"
#include "quantizers/int_grid.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

// Of W in float32, so that what a thread works on stays in its cache.
constexpr std::size_t kSliceNumbers = std::size_t{1} << 16;

struct Slices {
  explicit Slices(const RowSource& W)
      : rows(std::clamp<std::size_t>(
            kSliceNumbers / std::max<std::size_t>(1, W.cols), 1,
            std::max<std::size_t>(1, W.rows))),
        count(ceil_div(W.rows, rows)) {}

  std::size_t rows, count;
};

PackedWeight round_rows(const RowSource& W, const QuantizeConfig& config,
                        std::string_view name, ThreadPool& pool,
                        std::vector<RowDifference>& differences) {
  const Slices slices(W);
  std::vector<PackedWeight> parts(slices.count);
  pool.for_each(slices.count, [&](std::size_t s) {
    const std::size_t first = s * slices.rows;
    const std::size_t count = std::min(slices.rows, W.rows - first);
    thread_local std::vector<float> numbers, row;
    numbers.resize(count * W.cols);
    row.resize(W.cols);
    const MatrixView<float> slice(numbers, count, W.cols);
    W.read(first, slice);
    check_weights(slice, name, first);
    parts[s] = round_to_nearest(slice, config, pool);
    for (std::size_t o = 0; o < count; ++o) {
      dequantize_rows(parts[s], o, {row, 1, W.cols});
      differences[first + o] = row_difference(row, slice.row(o));
    }
  });
  return join_rows(std::move(parts));
}

}  // namespace

RowsRounded quantize_rows(const RowSource& W, const QuantizeConfig& config,
                          const InputStats* stats, std::string_view name,
                          ThreadPool& pool) {
  if (W.rows * W.cols == 0) check_weights({{}, W.rows, W.cols}, name);
  std::vector<RowDifference> differences(W.rows);
  RowsRounded rounded;
  rounded.result =
      with_fitting_scales(config, [&](const QuantizeConfig& fitting) {
        PackedWeight weight = round_rows(W, fitting, name, pool, differences);
        rounded.totals = total_of(differences, W.cols);
        return finish_result(
            {.stats = stats, .config = &fitting, .pool = &pool, .name = name},
            std::move(weight), rounded.totals.difference.output_error);
      });
  return rounded;
}

}  // namespace llmpress
