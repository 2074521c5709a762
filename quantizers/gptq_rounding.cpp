#include "quantizers/gptq_rounding.h"

#include <algorithm>

#include "compress/core/vector_clones.h"
#include "quantizers/int_code.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerChunk = 16;

// w becomes w' = s (code - z).
LLMPRESS_VECTOR_CLONES
void round_column(std::size_t rows, float* w, const float* scale,
                  const float* zero, float max_code, float* code) {
  for (std::size_t r = 0; r < rows; ++r) {
    code[r] = int_code(w[r], scale[r], zero[r], max_code);
    w[r] = (code[r] - zero[r]) * scale[r];
  }
}

}  // namespace

GptqRounding::GptqRounding(std::size_t out, const GptqOrder& order,
                           const WeightScheme& scheme, const IntGrids& fixed,
                           MatrixView<const std::uint8_t> mask,
                           ThreadPool& pool)
    : order_(order),
      scheme_(scheme),
      mask_(mask),
      pool_(pool),
      codes_(out, order.column.size()),
      fitted_(order.column.size()) {
  const std::size_t groups =
      1 + std::size_t{*std::ranges::max_element(order.group)};
  scales_ = MatrixF(groups, out);
  zeros_ = MatrixF(groups, out);
  if (!order.fixed_grids) return;
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t g = 0; g < groups; ++g) {
      set_grid(g, o, {fixed.scales(o, g), fixed.zeros(o, g)});
    }
  }
}

ColumnCompressor GptqRounding::compressor() {
  return {
      .begin_block = [this](std::size_t begin, std::size_t end,
                            ConstMatrixView W) { begin_block(begin, end, W); },
      .compress = [this](
                      const ColumnWindow& window,
                      std::span<float> column) { compress(window, column); }};
}

IntGrids GptqRounding::grids(std::size_t group_size) const {
  const std::size_t out = scales_.cols(), groups = scales_.rows();
  IntGrids grids{.group_size = group_size,
                 .scales = MatrixF(out, groups),
                 .zeros = Matrix<std::uint8_t>(out, groups)};
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t g = 0; g < groups; ++g) {
      grids.scales(o, g) = scales_(g, o);
      grids.zeros(o, g) = static_cast<std::uint8_t>(zeros_(g, o));
    }
  }
  return grids;
}

// Grids of groups that reach beyond the block, whose columns are all up to date
// in W now; with config.stale_grid also of those that start later in the block.
void GptqRounding::begin_block(std::size_t begin, std::size_t end,
                               ConstMatrixView W) {
  for (std::size_t p = begin; p < end; ++p) {
    const std::size_t count = order_.fit_count[p];
    const bool inside_window = p + count <= end && !order_.stale_grids;
    if (count == 0 || inside_window) continue;
    fitted_[p] = 1;
    pool_.for_ranges(
        W.rows(), kRowsPerChunk, [&](std::size_t r0, std::size_t r1) {
          for (std::size_t r = r0; r < r1; ++r) {
            set_grid(order_.group[p], r,
                     fit_int_grid(W.row(r).subspan(p, count), scheme_));
          }
        });
  }
}

void GptqRounding::fit_window(const ColumnWindow& window) {
  const std::size_t p = window.column;
  const std::size_t count = order_.fit_count[p];
  std::vector<float> weights(count);
  for (std::size_t r = 0; r < window.rows; ++r) {
    for (std::size_t k = 0; k < count; ++k) weights[k] = window.at(p + k)[r];
    set_grid(order_.group[p], window.begin_row + r,
             fit_int_grid(weights, scheme_));
  }
}

void GptqRounding::compress(const ColumnWindow& window,
                            std::span<float> column) {
  const std::size_t p = window.column;
  if (order_.fit_count[p] > 0 && fitted_[p] == 0) fit_window(window);
  const std::size_t g = order_.group[p];
  if (mask_.size() > 0) {
    for (std::size_t r = 0; r < window.rows; ++r) {
      if (mask_(window.begin_row + r, order_.column[p]) == 0) column[r] = 0;
    }
  }
  std::vector<float> codes(window.rows);
  round_column(window.rows, column.data(),
               scales_.row(g).data() + window.begin_row,
               zeros_.row(g).data() + window.begin_row,
               max_int_code(scheme_.bits), codes.data());
  for (std::size_t r = 0; r < window.rows; ++r) {
    codes_(window.begin_row + r, order_.column[p]) =
        static_cast<std::uint8_t>(codes[r]);
  }
}

void GptqRounding::set_grid(std::size_t group, std::size_t row,
                            const IntGrid& grid) {
  scales_(group, row) = grid.scale;
  zeros_(group, row) = static_cast<float>(grid.zero);
}

}  // namespace llmpress
