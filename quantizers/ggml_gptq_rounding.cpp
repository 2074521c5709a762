#include "quantizers/ggml_gptq_rounding.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quantizers/ggml_grid_rounding.h"
#include "quantizers/ggml_rounding.h"

namespace llmpress {

std::uint8_t nearest_block_code(const GgmlLayout& layout, float scale,
                                float minimum, float w) {
  if (layout.table == nullptr) {
    if (scale == 0) return static_cast<std::uint8_t>(layout.zero);
    const float code =
        std::nearbyint((w + minimum) / scale) + static_cast<float>(layout.zero);
    return static_cast<std::uint8_t>(
        std::clamp(code, 0.0f, static_cast<float>(layout.levels - 1)));
  }
  std::uint8_t best = 0;
  float error = std::fabs(scale * static_cast<float>(layout.table[0]) - w);
  for (int code = 1; code < layout.levels; ++code) {
    const float own =
        std::fabs(scale * static_cast<float>(layout.table[code]) - w);
    if (!(own < error)) continue;
    error = own;
    best = static_cast<std::uint8_t>(code);
  }
  return best;
}

GgmlGptqRounding::GgmlGptqRounding(std::size_t out, std::size_t in,
                                   GgmlType type,
                                   std::span<const float> importance,
                                   ThreadPool& pool)
    : layout_(layout(type)),
      importance_(importance),
      pool_(pool),
      weight_{.out = out, .in = in, .type = type},
      blocks_(out) {
  weight_.blocks.resize(out * weight_.row_bytes());
}

ColumnCompressor GgmlGptqRounding::compressor() {
  return {.begin_block = [this](std::size_t begin, std::size_t,
                                ConstMatrixView W) { begin_block(begin, W); },
          .compress =
              [this](const ColumnWindow& window, std::span<float> column) {
                compress(window, column);
              }};
}

void GgmlGptqRounding::begin_block(std::size_t begin, ConstMatrixView W) {
  const GgmlTypeFacts& f = facts(weight_.type);
  begin_ = begin;
  pool_.for_ranges(weight_.out, 8, [&](std::size_t first, std::size_t end) {
    for (std::size_t o = first; o < end; ++o) {
      const std::span<const float> row = W.row(o);
      double squares = 0;
      for (const float w : row) squares += double{w} * double{w};
      // Rounded and read again, so that scales are those that are stored.
      std::vector<std::byte> octets(f.bytes);
      pack_ggml_block(
          weight_.type,
          fit_ggml_block(
              weight_.type, row.subspan(begin, f.elements),
              importance_.subspan(begin, f.elements),
              static_cast<float>(squares / static_cast<double>(row.size()))),
          octets);
      blocks_[o] = unpack_ggml_block(weight_.type, octets);
    }
  });
}

void GgmlGptqRounding::choose_point(const ColumnWindow& window, std::size_t r) {
  constexpr std::size_t kTogether = 8;
  const std::size_t i = window.column - begin_;
  GgmlBlock& block = blocks_[window.begin_row + r];
  std::array<float, kTogether> x{};
  for (std::size_t k = 0; k < kTogether; ++k) {
    x[k] = window.at(window.column + k)[r];
  }
  const std::span<std::uint8_t> codes =
      std::span(block.codes).subspan(i, kTogether);
  const bool fixed = weight_.type == GgmlType::kIq1S;
  const bool upper = codes[0] >= layout_.levels / 2;
  round_to_grid(
      weight_.type, scale_of(layout_, block, i / layout_.step), x,
      importance_.subspan(window.column, kTogether),
      fixed ? (upper ? GridHalf::kUpper : GridHalf::kLower) : GridHalf::kAny,
      codes);
}

float GgmlGptqRounding::round(std::size_t row, std::size_t i, float w) {
  GgmlBlock& block = blocks_[row];
  const std::size_t j = i / layout_.step;
  const float scale = scale_of(layout_, block, j);
  const float minimum = minimum_of(layout_, block, j);
  if (grid_of(weight_.type) == nullptr) {
    block.codes[i] = nearest_block_code(layout_, scale, minimum, w);
  }
  return scale * static_cast<float>(value_of(layout_, block.codes[i])) -
         minimum;
}

void GgmlGptqRounding::compress(const ColumnWindow& window,
                                std::span<float> column) {
  const GgmlTypeFacts& f = facts(weight_.type);
  const std::size_t i = window.column - begin_;
  for (std::size_t r = 0; r < window.rows; ++r) {
    const std::size_t o = window.begin_row + r;
    if (i % 8 == 0 && grid_of(weight_.type) != nullptr) {
      choose_point(window, r);
    }
    column[r] = round(o, i, column[r]);
    if (i + 1 < f.elements) continue;
    pack_ggml_block(
        weight_.type, blocks_[o],
        std::span(weight_.blocks)
            .subspan(o * weight_.row_bytes() + begin_ / f.elements * f.bytes,
                     f.bytes));
  }
}

}  // namespace llmpress
