#include "compress/kernels/panel_product.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <memory>
#include <type_traits>

#include "compress/core/checked.h"
#include "compress/kernels/panel_kernels.h"
#include "compress/kernels/panel_tasks.h"

namespace llmpress {
namespace {

// The sum of a block of a row, side by side so that the compiler need not keep
// the order of one after the other.
template <class Sum, class T>
Sum block_sum(const T* row, PanelBlock block) {
  constexpr std::size_t kLanes = 16;
  Sum lanes[kLanes] = {};
  std::size_t k = block.begin;
  for (; k + kLanes <= block.end; k += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) lanes[j] += row[k + j];
  }
  for (std::size_t j = 0; k < block.end; ++k, ++j) lanes[j] += row[k];
  Sum sum = 0;
  for (const Sum lane : lanes) sum += lane;
  return sum;
}

// Divides the inputs by where their codes stand.
void scale_to_places(const PanelWeight& W, const float* row, float* out) {
  const auto factors = place_factors(W);
  for (std::size_t k = 0; k < W.depth; k += kPlaceFactors) {
    const std::size_t count = std::min(kPlaceFactors, W.depth - k);
    for (std::size_t j = 0; j < count; ++j) {
      out[k + j] = row[k + j] * factors[j];
    }
  }
}

// A few rows in gathered order, and their sums over blocks. Of floats with
// plain codes the rows are scaled, the sums are not.
template <class T, class Sum>
struct FewRows {
  std::vector<T> storage{};
  std::vector<const T*> rows{};
  std::vector<Sum> sums{};  // [blocks, tokens]

  FewRows(const PanelWeight& W, MatrixView<const T> X,
          const std::vector<PanelBlock>& blocks, bool with_sums) {
    const bool scaled = std::is_same_v<T, float> && W.multiplies_in_place();
    const bool copied = scaled || !W.gather.empty();
    if (copied) storage.resize(X.rows() * W.depth);
    if (with_sums) sums.resize(blocks.size() * X.rows());
    for (std::size_t t = 0; t < X.rows(); ++t) {
      T* const own = copied ? storage.data() + t * W.depth : nullptr;
      const T* row = X.row(t).data();
      if (!W.gather.empty()) {
        gather_row(W, X.row(t), own);
        row = own;
      }
      for (std::size_t b = 0; b < blocks.size() && with_sums; ++b) {
        sums[b * X.rows() + t] = block_sum<Sum>(row, blocks[b]);
      }
      if constexpr (std::is_same_v<T, float>) {
        if (scaled) scale_to_places(W, row, own);
      }
      rows.push_back(copied ? own : row);
    }
    rows.resize(kFewTokens, rows.back());
  }
};

// Packs all tokens into tiles whose innermost unit is `Unit` inputs of one
// token, and their sums over blocks.
template <class T, class Sum, std::size_t Unit>
struct PackedTokens {
  PackingBuffer buffer;
  TokenTiles tiles{};
  std::vector<Sum> sums{};  // [blocks, tokens]

  PackedTokens(const PanelWeight& W, MatrixView<const T> X,
               const std::vector<PanelBlock>& blocks, bool with_sums,
               const PanelKernels& kernels, ThreadPool& pool)
      : buffer(X.rows() * W.depth * sizeof(T)) {
    tiles.tokens = X.rows();
    tiles.first = cut_tokens(X.rows(), kernels.next_tile);
    tiles.data = buffer.data();
    if (with_sums) sums.resize(blocks.size() * X.rows());
    auto* const data = reinterpret_cast<T*>(buffer.data());
    pool.for_each(tiles.tiles(), [&](std::size_t i) {
      const std::size_t first = tiles.first[i];
      const std::size_t count = tiles.first[i + 1] - first;
      std::vector<T> row(W.depth);
      for (std::size_t m = 0; m < count; ++m) {
        gather_row(W, X.row(first + m), row.data());
        T* to = data + first * W.depth + m * Unit;
        for (std::size_t k = 0; k < W.depth; k += Unit, to += count * Unit) {
          std::copy_n(row.data() + k, Unit, to);
        }
        if (!with_sums) continue;
        for (std::size_t b = 0; b < blocks.size(); ++b) {
          sums[b * X.rows() + first + m] =
              block_sum<Sum>(row.data(), blocks[b]);
        }
      }
    });
  }
};

// See IntSums.
void centre_sums(const PanelWeight& W, std::vector<std::int32_t>& sums) {
  if (W.zero_type != PanelZeroType::kNone) return;
  for (std::int32_t& s : sums) s *= W.centre;
}

}  // namespace

void multiply_panels(const PanelWeight& W, ConstMatrixView X,
                     MatrixView<float> Y, ThreadPool& pool, Isa isa) {
  assert(X.cols() == W.in && Y.cols() == W.out && X.rows() == Y.rows());
  const PanelKernels& kernels = panel_kernels(isa);
  const bool with_sums = W.needs_sums();
  const auto scale = [&](std::size_t) { return W.final_scale; };
  if (X.rows() <= kFewTokens) {
    const FewRows<float, float> few(W, X, W.blocks, with_sums);
    const FloatSums sums{few.sums.data(), X.rows()};
    run_few(
        W, Y, pool,
        [&](std::size_t group, float* c) {
          kernels.multiply_few(W, group, few.rows.data(), sums, c);
        },
        scale);
    return;
  }
  const auto slice = [&](std::size_t first, std::size_t count) {
    const PackedTokens<float, float, 1> packed(
        W, X.rows_slice(first, count), W.blocks, with_sums, kernels, pool);
    const FloatSums sums{packed.sums.data(), count};
    run_tiles(
        W, packed.tiles, Y.rows_slice(first, count), pool,
        [&](const TileRange& range, float* c) {
          kernels.multiply_tiles(W, range, packed.tiles, sums, c);
        },
        scale);
  };
  for_token_slices(W, X.rows(), kernels.next_tile(X.rows()), pool.size(),
                   slice);
}

bool has_integer_codes(const PackedWeight& weight) {
  if (const auto* const grouped = std::get_if<GroupedIntWeight>(&weight)) {
    return grouped->float_zeros.empty() && grouped->bits > 2;
  }
  const auto* const int8 = std::get_if<Int8Weight>(&weight);
  // 255 * 256 * kIntBlockDepth < 2^31: sums cannot overflow.
  return int8 != nullptr &&
         std::all_of(int8->zeros.begin(), int8->zeros.end(),
                     [](std::int32_t z) { return z >= -128 && z <= 128; });
}

std::vector<std::int32_t> block_code_sums(const PanelWeight& W) {
  assert(W.format == PanelFormat::kByte || W.format == PanelFormat::kNibble);
  std::vector<std::int32_t> sums(W.panels() * W.int_blocks.size() * kPanelRows);
  for (std::size_t o = 0; o < W.out; ++o) {
    const std::size_t panel = o / kPanelRows, r = o % kPanelRows;
    for (std::size_t b = 0; b < W.int_blocks.size(); ++b) {
      const PanelBlock block = W.int_blocks[b];
      const std::int32_t zero = panel_zero(W, o, block.group);
      std::int32_t sum = 0;
      for (std::size_t k = block.begin; k < block.end; ++k) {
        const bool real = W.gather.empty() || W.gather[k] != kPadding;
        if (real) sum += panel_code(W, o, k) - zero;
      }
      sums[(panel * W.int_blocks.size() + b) * kPanelRows + r] = sum;
    }
  }
  return sums;
}

void multiply_panels_int(const PanelWeight& W, const IntActivations& X,
                         std::span<const std::int32_t> code_sums,
                         MatrixView<float> Y, ThreadPool& pool, Isa isa) {
  const PanelKernels& kernels = panel_kernels(isa);
  const MatrixView<const std::int8_t> codes(X.codes, X.tokens, X.in);
  const bool zeros = std::any_of(X.zeros.begin(), X.zeros.end(),
                                 [](std::int32_t z) { return z != 0; });
  assert(!zeros || !code_sums.empty());
  const auto scale = [&](std::size_t t) { return X.scales[t]; };
  IntSums sums{.tokens = X.tokens,
               .token_zeros = zeros ? X.zeros.data() : nullptr,
               .weight_sums = code_sums.data()};
  if (X.tokens <= kFewTokens) {
    FewRows<std::int8_t, std::int32_t> few(W, codes, W.int_blocks, true);
    centre_sums(W, few.sums);
    sums.sums = few.sums.data();
    run_few(
        W, Y, pool,
        [&](std::size_t group, float* c) {
          kernels.multiply_few_int(W, group, few.rows.data(), sums, c);
        },
        scale);
    return;
  }
  const auto slice = [&](std::size_t first, std::size_t count) {
    PackedTokens<std::int8_t, std::int32_t, 4> packed(
        W, codes.rows_slice(first, count), W.int_blocks, true, kernels, pool);
    centre_sums(W, packed.sums);
    IntSums of_slice = sums;
    of_slice.sums = packed.sums.data();
    of_slice.tokens = count;
    if (zeros) of_slice.token_zeros = X.zeros.data() + first;
    run_tiles(
        W, packed.tiles, Y.rows_slice(first, count), pool,
        [&](const TileRange& range, float* c) {
          kernels.multiply_tiles_int(W, range, packed.tiles, of_slice, c);
        },
        [&](std::size_t t) { return X.scales[first + t]; });
  };
  for_token_slices(W, X.tokens, kernels.next_tile(X.tokens), pool.size(),
                   slice);
}

}  // namespace llmpress
