#include "compress/kernels/panel_product.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <memory>

#include "compress/core/checked.h"
#include "compress/kernels/panel_kernels.h"

namespace llmpress {
namespace {

// A task of many tokens: 128 rows of W and at most this many register tiles of
// tokens, whose results stay in the second level cache.
constexpr std::size_t kGroupsPerTask = 2;
constexpr std::size_t kTilesPerTask = 48;
// A task of few tokens reads about this much of W.
constexpr std::size_t kBytesPerTask = std::size_t{64} << 10;

// Scratch that lives as long as its thread, because a buffer of this size would
// be mapped and unmapped by the allocator at every call.
float* thread_scratch(std::size_t floats) {
  static thread_local AlignedBuffer buffer;
  if (buffer.size() < floats * sizeof(float)) {
    buffer = AlignedBuffer(floats * sizeof(float));
  }
  return reinterpret_cast<float*>(buffer.data());
}

// The rows of W that a panel group holds, without the padding of the last one.
struct Rows {
  std::size_t begin, count;
};
Rows rows_of_group(const PanelWeight& W, std::size_t group) {
  const std::size_t begin = W.first_panel(group) * kPanelRows;
  return {begin,
          std::min(W.panels_in_group(group) * kPanelRows, W.out - begin)};
}

// Row t of the group's results, times `scale`.
void store_row(const PanelWeight& W, std::size_t group, const float* c,
               float scale, std::span<float> y) {
  const Rows rows = rows_of_group(W, group);
  for (std::size_t r = 0; r < rows.count; ++r) {
    y[rows.begin + r] = c[r] * scale;
  }
}

template <class T>
void gather_row(const PanelWeight& W, std::span<const T> x, T* out) {
  if (W.gather.empty()) {
    std::copy(x.begin(), x.end(), out);
    return;
  }
  for (std::size_t k = 0; k < W.depth; ++k) {
    out[k] = W.gather[k] == kPadding ? T{0} : x[W.gather[k]];
  }
}

// A few rows in gathered order, and their sums over blocks.
template <class T, class Sum>
struct FewRows {
  std::vector<T> storage{};
  std::vector<const T*> rows{};
  std::vector<Sum> sums{};  // [blocks, tokens]

  FewRows(const PanelWeight& W, MatrixView<const T> X,
          const std::vector<PanelBlock>& blocks, bool with_sums) {
    if (!W.gather.empty()) storage.resize(X.rows() * W.depth);
    for (std::size_t t = 0; t < X.rows(); ++t) {
      if (W.gather.empty()) {
        rows.push_back(X.row(t).data());
      } else {
        gather_row(W, X.row(t), storage.data() + t * W.depth);
        rows.push_back(storage.data() + t * W.depth);
      }
    }
    rows.resize(kFewTokens, rows.back());
    if (!with_sums) return;
    sums.resize(blocks.size() * X.rows());
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      for (std::size_t t = 0; t < X.rows(); ++t) {
        Sum sum = 0;
        for (std::size_t k = blocks[b].begin; k < blocks[b].end; ++k) {
          sum += rows[t][k];
        }
        sums[b * X.rows() + t] = sum;
      }
    }
  }
};

std::vector<std::size_t> cut_tokens(std::size_t tokens,
                                    const PanelKernels& kernels) {
  std::vector<std::size_t> first{0};
  while (first.back() < tokens) {
    first.push_back(first.back() + kernels.next_tile(tokens - first.back()));
  }
  return first;
}

// Packs all tokens into tiles whose innermost unit is `Unit` inputs of one
// token, and their sums over blocks.
template <class T, class Sum, std::size_t Unit>
struct PackedTokens {
  TokenTiles tiles{};
  std::vector<Sum> sums{};  // [blocks, tokens]

  PackedTokens(const PanelWeight& W, MatrixView<const T> X,
               const std::vector<PanelBlock>& blocks, bool with_sums,
               const PanelKernels& kernels, ThreadPool& pool) {
    tiles.tokens = X.rows();
    tiles.first = cut_tokens(X.rows(), kernels);
    tiles.data = AlignedBuffer(X.rows() * W.depth * sizeof(T));
    if (with_sums) sums.resize(blocks.size() * X.rows());
    auto* const data = reinterpret_cast<T*>(tiles.data.data());
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
          Sum sum = 0;
          for (std::size_t k = blocks[b].begin; k < blocks[b].end; ++k) {
            sum += row[k];
          }
          sums[b * X.rows() + first + m] = sum;
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

// Calls multiply(group, c) for every panel group, c [tokens, kGroupRows], and
// stores the results; scale(t) multiplies a token's row.
template <class Multiply, class Scale>
void run_few(const PanelWeight& W, MatrixView<float> Y, ThreadPool& pool,
             Multiply multiply, Scale scale) {
  const std::size_t group_bytes =
      W.data.size() / std::max<std::size_t>(1, W.full_groups());
  const std::size_t grain = std::max<std::size_t>(
      1, kBytesPerTask / std::max<std::size_t>(1, group_bytes));
  pool.for_ranges(W.panel_groups(), grain,
                  [&](std::size_t begin, std::size_t end) {
                    float c[kFewTokens * kGroupRows];
                    for (std::size_t g = begin; g < end; ++g) {
                      multiply(g, c);
                      for (std::size_t t = 0; t < Y.rows(); ++t) {
                        store_row(W, g, c + t * kGroupRows, scale(t), Y.row(t));
                      }
                    }
                  });
}

// The same over ranges of panel groups and token tiles.
template <class Multiply, class Scale>
void run_tiles(const PanelWeight& W, const TokenTiles& X, MatrixView<float> Y,
               ThreadPool& pool, Multiply multiply, Scale scale) {
  const std::size_t row_tasks = ceil_div(W.panel_groups(), kGroupsPerTask);
  const std::size_t token_tasks = ceil_div(X.tiles(), kTilesPerTask);
  const std::size_t tiles_per_task = ceil_div(X.tiles(), token_tasks);
  pool.for_each(row_tasks * token_tasks, [&](std::size_t task) {
    TileRange range;
    range.first_group = task % row_tasks * kGroupsPerTask;
    range.groups =
        std::min(kGroupsPerTask, W.panel_groups() - range.first_group);
    range.first_tile = task / row_tasks * tiles_per_task;
    range.end_tile = std::min(range.first_tile + tiles_per_task, X.tiles());
    const std::size_t first = X.first[range.first_tile];
    const std::size_t tokens = X.first[range.end_tile] - first;
    const std::size_t ldc = range.groups * kGroupRows;
    float* const c = thread_scratch(tokens * ldc);
    std::fill_n(c, tokens * ldc, 0.0f);
    multiply(range, c);
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t g = 0; g < range.groups; ++g) {
        store_row(W, range.first_group + g, c + t * ldc + g * kGroupRows,
                  scale(first + t), Y.row(first + t));
      }
    }
  });
}

}  // namespace

void multiply_panels(const PanelWeight& W, ConstMatrixView X,
                     MatrixView<float> Y, ThreadPool& pool, Isa isa) {
  assert(X.cols() == W.in && Y.cols() == W.out && X.rows() == Y.rows());
  const PanelKernels& kernels = panel_kernels(isa);
  const bool with_sums = W.zero_type != PanelZeroType::kNone;
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
  const PackedTokens<float, float, 1> packed(W, X, W.blocks, with_sums, kernels,
                                             pool);
  const FloatSums sums{packed.sums.data(), X.rows()};
  run_tiles(
      W, packed.tiles, Y, pool,
      [&](const TileRange& range, float* c) {
        kernels.multiply_tiles(W, range, packed.tiles, sums, c);
      },
      scale);
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
  PackedTokens<std::int8_t, std::int32_t, 4> packed(W, codes, W.int_blocks,
                                                    true, kernels, pool);
  centre_sums(W, packed.sums);
  sums.sums = packed.sums.data();
  run_tiles(
      W, packed.tiles, Y, pool,
      [&](const TileRange& range, float* c) {
        kernels.multiply_tiles_int(W, range, packed.tiles, sums, c);
      },
      scale);
}

}  // namespace llmpress
