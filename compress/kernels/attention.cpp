#include "compress/kernels/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <vector>

namespace llmpress {
namespace {

constexpr std::size_t kKeysPerTile = 64;
constexpr std::size_t kQueriesPerTask = 16;

const float* f32_row(const KvView& view, std::size_t token,
                     std::size_t offset) {
  return reinterpret_cast<const float*>(view.data + token * view.row_bytes) +
         offset;
}

struct Task {
  const AttentionSegment* segment;
  std::size_t head, begin, end;  // queries [begin, end) of the segment
};

// The running state of one query: o / sum is the attention over the keys so
// far.
struct OnlineSoftmax {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

void attend_one(const Task& task, const AttentionConfig& config,
                std::size_t query, std::span<const float> q,
                std::span<float> o) {
  const AttentionSegment& s = *task.segment;
  const std::size_t kv_offset =
      task.head / (config.heads / config.kv_heads) * config.head_dim;
  const std::size_t end = s.past + query + 1;
  const std::size_t begin =
      config.window != 0 && end > config.window ? end - config.window : 0;
  OnlineSoftmax state;
  std::fill(o.begin(), o.end(), 0.0f);
  float scores[kKeysPerTile];
  for (std::size_t j0 = begin; j0 < end; j0 += kKeysPerTile) {
    const std::size_t count = std::min(kKeysPerTile, end - j0);
    float tile_max = state.max;
    for (std::size_t j = 0; j < count; ++j) {
      const float* const k = f32_row(s.keys, j0 + j, kv_offset);
      float dot = 0;
      for (std::size_t d = 0; d < q.size(); ++d) dot += q[d] * k[d];
      dot *= config.scale;
      if (config.softcap != 0) {
        dot = config.softcap * std::tanh(dot / config.softcap);
      }
      scores[j] = dot;
      tile_max = std::max(tile_max, dot);
    }
    const float shrink = std::exp(state.max - tile_max);
    state.sum *= shrink;
    for (float& x : o) x *= shrink;
    for (std::size_t j = 0; j < count; ++j) {
      const float p = std::exp(scores[j] - tile_max);
      state.sum += p;
      const float* const v = f32_row(s.values, j0 + j, kv_offset);
      for (std::size_t d = 0; d < o.size(); ++d) o[d] += p * v[d];
    }
    state.max = tile_max;
  }
  for (float& x : o) x /= state.sum;
}

}  // namespace

void attention(ConstMatrixView Q, std::span<const AttentionSegment> segments,
               const AttentionConfig& config, MatrixView<float> O,
               ThreadPool& pool, Isa) {
  assert(Q.cols() == config.heads * config.head_dim && O.cols() == Q.cols() &&
         O.rows() == Q.rows() && config.heads % config.kv_heads == 0);
  std::vector<Task> tasks;
  for (const AttentionSegment& s : segments) {
    assert(s.first_query + s.queries <= Q.rows());
    for (std::size_t b = 0; b < s.queries; b += kQueriesPerTask) {
      for (std::size_t h = 0; h < config.heads; ++h) {
        tasks.push_back({&s, h, b, std::min(b + kQueriesPerTask, s.queries)});
      }
    }
  }
  pool.for_each(tasks.size(), [&](std::size_t i) {
    const Task& task = tasks[i];
    const std::size_t offset = task.head * config.head_dim;
    for (std::size_t r = task.begin; r < task.end; ++r) {
      const std::size_t row = task.segment->first_query + r;
      attend_one(task, config, r, Q.row(row).subspan(offset, config.head_dim),
                 O.row(row).subspan(offset, config.head_dim));
    }
  });
}

}  // namespace llmpress
