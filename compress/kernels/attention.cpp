#include "compress/kernels/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <vector>

#include "compress/kernels/attention_backward.h"
#include "compress/kernels/attention_kernels.h"
#include "compress/kernels/target.h"

namespace llmpress {
namespace {

constexpr std::size_t kKeysPerTile = 64;

const float* f32_row(const KvView& view, std::size_t token,
                     std::size_t offset) {
  return reinterpret_cast<const float*>(view.data + token * view.row_bytes) +
         offset;
}

// The running state of one query: o / sum is the attention over the keys so
// far.
struct OnlineSoftmax {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

void attend_one(const AttentionSegment& s, std::size_t kv_head,
                std::size_t head, const AttentionConfig& config,
                std::size_t query, std::span<const float> q,
                std::span<float> o) {
  const std::size_t end = s.past + query + 1;
  const std::size_t begin = first_key(config, end - 1);
  OnlineSoftmax state;
  if (!config.sinks.empty()) state = {.max = config.sinks[head], .sum = 1};
  std::fill(o.begin(), o.end(), 0.0f);
  float scores[kKeysPerTile];
  for (std::size_t j0 = begin; j0 < end; j0 += kKeysPerTile) {
    const std::size_t count = std::min(kKeysPerTile, end - j0);
    float tile_max = state.max;
    for (std::size_t j = 0; j < count; ++j) {
      const float* const k = f32_row(s.keys, j0 + j, kv_head * config.head_dim);
      float dot = 0;
      for (std::size_t d = 0; d < q.size(); ++d) dot += q[d] * k[d];
      dot *= config.scale;
      if (config.softcap != 0) {
        dot = config.softcap * std::tanh(dot / config.softcap);
      }
      if (!config.slopes.empty()) {
        // Negative: a key is never behind its query.
        dot -= config.slopes[head] * static_cast<float>(end - 1 - j0 - j);
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
      const float* const v =
          f32_row(s.values, j0 + j, kv_head * config.value_dim);
      for (std::size_t d = 0; d < o.size(); ++d) o[d] += p * v[d];
    }
    state.max = tile_max;
  }
  for (float& x : o) x /= state.sum;
}

void attend_plain(ConstMatrixView Q, const AttentionConfig& config,
                  const AttentionTask& task, MatrixView<float> O) {
  for (std::size_t r = 0; r < task.queries; ++r) {
    const std::size_t query = task.first_query + r;
    const std::size_t row = task.segment->first_query + query;
    for (std::size_t h = 0; h < task.heads; ++h) {
      const std::size_t head = task.first_head + h;
      attend_one(*task.segment, task.kv_head, head, config, query,
                 Q.row(row).subspan(head * config.head_dim, config.head_dim),
                 O.row(row).subspan(head * config.value_dim, config.value_dim));
    }
  }
}

// Every (query, head) pair of the segment once.
void add_tasks(const AttentionSegment& segment, const AttentionConfig& config,
               std::vector<AttentionTask>& tasks) {
  const std::size_t shared = config.heads / config.kv_heads;
  const std::size_t heads = std::min(shared, kAttentionRows);
  const std::size_t queries = kAttentionRows / heads;
  for (std::size_t q = 0; q < segment.queries; q += queries) {
    for (std::size_t kv = 0; kv < config.kv_heads; ++kv) {
      for (std::size_t h = 0; h < shared; h += heads) {
        tasks.push_back({&segment, q, std::min(queries, segment.queries - q),
                         kv * shared + h, std::min(heads, shared - h), kv});
      }
    }
  }
}

}  // namespace

std::size_t first_key(const AttentionConfig& config, std::size_t position) {
  std::size_t first = 0;
  if (config.window != 0 && position >= config.window) {
    first = position - config.window + 1;
  }
  if (config.chunk != 0) {
    first = std::max(first, position / config.chunk * config.chunk);
  }
  return first;
}

AttendFunction attend_function(Isa isa) {
#if LLMPRESS_X86
  if (isa == Isa::kAvx2) return &attend_avx2;
  if (isa == Isa::kAvx512) return &attend_avx512;
#endif
  (void)isa;
  return &attend_plain;
}

void attention(ConstMatrixView Q, std::span<const AttentionSegment> segments,
               const AttentionConfig& wanted, MatrixView<float> O,
               ThreadPool& pool, Isa isa) {
  AttentionConfig config = wanted;
  if (config.value_dim == 0) config.value_dim = config.head_dim;
  assert(Q.cols() == config.heads * config.head_dim &&
         O.cols() == config.heads * config.value_dim && O.rows() == Q.rows() &&
         config.heads % config.kv_heads == 0);
  if (config.dropout.on()) {
    return attention_dropped(Q, segments, config, O, pool, isa);
  }
  std::vector<AttentionTask> tasks;
  for (const AttentionSegment& s : segments) {
    assert(s.first_query + s.queries <= Q.rows());
    add_tasks(s, config, tasks);
  }
  const AttendFunction attend = attend_function(isa);
  pool.for_each(tasks.size(),
                [&](std::size_t i) { attend(Q, config, tasks[i], O); });
}

}  // namespace llmpress
