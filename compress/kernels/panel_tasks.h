// How a product of panels is cut into tasks for the threads, whatever the inputs
// are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/aligned_buffer.h"
#include "compress/kernels/panel_kernels.h"
#include "compress/kernels/panel_weight.h"

namespace llmpress {

// A task of many tokens: 128 rows of W and at most this many register tiles of
// tokens, whose results stay in the second level cache.
inline constexpr std::size_t kGroupsPerTask = 2;
inline constexpr std::size_t kTilesPerTask = 48;
// A task of few tokens reads this much of W at most, because the first lines of
// a stretch come at the pace of the memory's latency, and this much at least,
// unless a thread would have fewer than so many tasks.
inline constexpr std::size_t kMostBytesPerTask = std::size_t{256} << 10;
inline constexpr std::size_t kLeastBytesPerTask = std::size_t{32} << 10;
inline constexpr std::size_t kTasksPerThread = 8;

// Scratch that lives as long as its thread, because a buffer of this size would
// be mapped and unmapped by the allocator at every call.
inline float* thread_scratch(std::size_t floats) {
  static thread_local AlignedBuffer buffer;
  if (buffer.size() < floats * sizeof(float)) {
    buffer = AlignedBuffer(floats * sizeof(float));
  }
  return reinterpret_cast<float*>(buffer.data());
}

// A buffer for packed tokens that a thread keeps from one product to the next,
// for the same reason; larger ones are given back.
inline constexpr std::size_t kMostKeptBytes = std::size_t{32} << 20;

class PackingBuffer {
 public:
  explicit PackingBuffer(std::size_t bytes) : buffer_(std::move(kept())) {
    if (buffer_.size() < bytes) buffer_ = AlignedBuffer::unset(bytes);
  }
  ~PackingBuffer() {
    if (buffer_.size() <= kMostKeptBytes) kept() = std::move(buffer_);
  }
  PackingBuffer(const PackingBuffer&) = delete;
  PackingBuffer& operator=(const PackingBuffer&) = delete;

  std::byte* data() { return buffer_.data(); }

 private:
  static AlignedBuffer& kept() {
    static thread_local AlignedBuffer buffer;
    return buffer;
  }
  AlignedBuffer buffer_;
};

// Calls slice(first, count) for the tokens that are packed at a time: as many as
// give each thread several tasks, so that what is packed stays in the cache.
// `largest`: tokens of the largest tile.
template <class Slice>
void for_token_slices(const PanelWeight& W, std::size_t tokens,
                      std::size_t largest, std::size_t threads, Slice slice) {
  const std::size_t row_tasks = ceil_div(W.panel_groups(), kGroupsPerTask);
  const std::size_t most =
      largest * kTilesPerTask * ceil_div(kTasksPerThread * threads, row_tasks);
  const std::size_t each =
      ceil_div(ceil_div(tokens, ceil_div(tokens, most)), largest) * largest;
  for (std::size_t first = 0; first < tokens; first += each) {
    slice(first, std::min(each, tokens - first));
  }
}

// The rows of W that a panel group holds, without the padding of the last one.
struct PanelRows {
  std::size_t begin, count;
};
inline PanelRows rows_of_group(const PanelWeight& W, std::size_t group) {
  const std::size_t begin = W.first_panel(group) * kPanelRows;
  return {begin,
          std::min(W.panels_in_group(group) * kPanelRows, W.out - begin)};
}

// Row t of the group's results, times `scale`.
inline void store_row(const PanelWeight& W, std::size_t group, const float* c,
                      float scale, std::span<float> y) {
  const PanelRows rows = rows_of_group(W, group);
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

// Where the tiles of so many tokens begin, and their end.
inline std::vector<std::size_t> cut_tokens(
    std::size_t tokens, std::size_t (*next_tile)(std::size_t remaining)) {
  std::vector<std::size_t> first{0};
  while (first.back() < tokens) {
    first.push_back(first.back() + next_tile(tokens - first.back()));
  }
  return first;
}

// How many panel groups a task of few tokens takes; no result depends on it.
inline std::size_t groups_per_task(const PanelWeight& W, std::size_t threads) {
  const std::size_t bytes =
      std::clamp(W.data.size() / (kTasksPerThread * threads),
                 kLeastBytesPerTask, kMostBytesPerTask);
  const std::size_t group_bytes =
      W.data.size() / std::max<std::size_t>(1, W.full_groups());
  return std::max<std::size_t>(1,
                               bytes / std::max<std::size_t>(1, group_bytes));
}

// Calls multiply(group, c) for every panel group, c [tokens, kGroupRows], and
// stores the results; scale(t) multiplies a token's row.
template <class Multiply, class Scale>
void run_few(const PanelWeight& W, MatrixView<float> Y, ThreadPool& pool,
             Multiply multiply, Scale scale) {
  const std::size_t grain = groups_per_task(W, pool.size());
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

}  // namespace llmpress
