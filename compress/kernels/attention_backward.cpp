#include "compress/kernels/attention_backward.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "compress/core/strided_product.h"
#include "compress/kernels/attention_kernels.h"
#include "compress/kernels/row_kernels.h"
#include "compress/kernels/softmax.h"

namespace llmpress {
namespace {

constexpr std::size_t kQueriesPerTile = 64;

// One head of one sequence: rows are its tokens.
struct Head {
  std::size_t index = 0;
  StridedIn Q{}, K{}, V{}, O{}, dO{};
  StridedOut dQ{}, dK{}, dV{};
};

// Buffers of a thread.
struct Tiles {
  std::vector<float> P{}, dP{};
};

std::span<float> row(StridedOut X, std::size_t r) {
  return {X.data + r * X.stride, X.cols};
}
std::span<const float> row(StridedIn X, std::size_t r) {
  return {X.data + r * X.stride, X.cols};
}

float dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return static_cast<float>(sum);
}

// Scores of a row of products, where seen.
void score(const AttentionConfig& config, std::size_t head,
           std::size_t distance, std::span<float> z) {
  if (config.softcap != 0) {
    for (float& x : z) x = config.softcap * std::tanh(x / config.softcap);
  }
  if (config.slopes.empty()) return;
  for (float& x : z) {
    x -= config.slopes[head] * static_cast<float>(distance--);
  }
}

// z <- softmax(z), a sink among them; returns the sink's part.
float normalize(const AttentionConfig& config, std::size_t head,
                std::span<float> z, Isa isa) {
  if (config.sinks.empty()) {
    softmax_in_place(z, isa);
    return 0;
  }
  const auto sink = static_cast<double>(config.sinks[head]);
  const double others = log_sum_exp(z, isa), top = std::max(others, sink);
  const double total =
      top + std::log(std::exp(others - top) + std::exp(sink - top));
  softmax_in_place(z, isa);
  const auto kept = static_cast<float>(std::exp(others - total));
  for (float& x : z) x *= kept;
  return static_cast<float>(std::exp(sink - total));
}

class Backward {
 public:
  Backward(const AttentionConfig& config, Isa isa)
      : config_(config), isa_(isa) {}

  // Adds the gradients of queries [begin, end); returns that of the sink.
  double run_tile(const Head& head, std::size_t begin, std::size_t end,
                  Tiles& tiles) const {
    const std::size_t first = first_key(config_, begin), keys = end - first;
    const StridedOut P = tile(tiles.P, end - begin, keys);
    const StridedOut dP = tile(tiles.dP, end - begin, keys);
    const StridedIn K = head.K.rows_slice(first, keys);
    const StridedIn Q = head.Q.rows_slice(begin, end - begin);
    const StridedIn dO = head.dO.rows_slice(begin, end - begin);
    multiply_transposed(Q, K, P, config_.scale, Accumulate::kOverwrite);
    multiply_transposed(dO, head.V.rows_slice(first, keys), dP, 1,
                        Accumulate::kOverwrite);
    double d_sink = 0;
    for (std::size_t r = 0; r < P.rows; ++r) {
      d_sink += run_row(head, begin + r, first, row(P, r), row(dP, r));
    }
    multiply_first_transposed(as_input(P), dO, head.dV.rows_slice(first, keys),
                              1, Accumulate::kAdd);
    multiply(as_input(dP), K, head.dQ.rows_slice(begin, end - begin),
             config_.scale, Accumulate::kAdd);
    multiply_first_transposed(as_input(dP), Q, head.dK.rows_slice(first, keys),
                              config_.scale, Accumulate::kAdd);
    return d_sink;
  }

 private:
  static StridedOut tile(std::vector<float>& buffer, std::size_t rows,
                         std::size_t keys) {
    buffer.resize(std::max(buffer.size(), rows * keys));
    return {buffer.data(), rows, keys, keys};
  }

  // One query: p from products q . k to probabilities, d from dO V^T to the
  // gradient of the products. Keys that it does not see become zeros.
  double run_row(const Head& head, std::size_t query, std::size_t first,
                 std::span<float> p, std::span<float> d) const {
    const std::size_t from = first_key(config_, query) - first;
    const std::size_t to = query + 1 - first, seen = to - from;
    for (const auto& [begin, end] :
         {std::pair(std::size_t{0}, from), std::pair(to, p.size())}) {
      std::fill(p.begin() + static_cast<std::ptrdiff_t>(begin),
                p.begin() + static_cast<std::ptrdiff_t>(end), 0.0f);
      std::fill(d.begin() + static_cast<std::ptrdiff_t>(begin),
                d.begin() + static_cast<std::ptrdiff_t>(end), 0.0f);
    }
    p = p.subspan(from, seen);
    d = d.subspan(from, seen);
    if (config_.softcap == 0 && config_.slopes.empty()) {
      return differentiate(head, query, p, d);
    }
    std::vector<float> slope(seen, 1.0f);
    if (config_.softcap != 0) {
      for (std::size_t j = 0; j < seen; ++j) {
        const float t = std::tanh(p[j] / config_.softcap);
        slope[j] = 1 - t * t;
      }
    }
    score(config_, head.index, seen - 1, p);
    const double d_sink = differentiate(head, query, p, d);
    for (std::size_t j = 0; j < seen; ++j) d[j] *= slope[j];
    return d_sink;
  }

  double differentiate(const Head& head, std::size_t query, std::span<float> p,
                       std::span<float> d) const {
    const float sink = normalize(config_, head.index, p, isa_);
    const float mean = dot(row(head.dO, query), row(head.O, query));
    for (std::size_t j = 0; j < p.size(); ++j) d[j] = p[j] * (d[j] - mean);
    return -static_cast<double>(sink) * static_cast<double>(mean);
  }

  const AttentionConfig& config_;
  Isa isa_;
};

Head head_of(const AttentionPass& pass, ConstMatrixView dO,
             const AttentionGradients& to, const AttentionConfig& c,
             std::size_t head, std::size_t first, std::size_t rows) {
  const std::size_t kv = head / (c.heads / c.kv_heads);
  const auto part = [&](auto X, std::size_t at, std::size_t width) {
    return columns_of(X, at * width, width).rows_slice(first, rows);
  };
  return {.index = head,
          .Q = part(pass.Q, head, c.head_dim),
          .K = part(pass.K, kv, c.head_dim),
          .V = part(pass.V, kv, c.value_dim),
          .O = part(pass.O, head, c.value_dim),
          .dO = part(dO, head, c.value_dim),
          .dQ = part(to.dQ, head, c.head_dim),
          .dK = part(to.dK, kv, c.head_dim),
          .dV = part(to.dV, kv, c.value_dim)};
}

}  // namespace

void attention_backward(const AttentionPass& pass, ConstMatrixView dO,
                        std::span<const std::size_t> sequences,
                        const AttentionConfig& wanted,
                        const AttentionGradients& gradients, ThreadPool& pool,
                        Isa isa) {
  AttentionConfig config = wanted;
  if (config.value_dim == 0) config.value_dim = config.head_dim;
  const Backward backward(config, isa);
  const std::size_t shared = config.heads / config.kv_heads;
  std::vector<std::size_t> starts;
  std::size_t tokens = 0;
  for (const std::size_t rows : sequences) {
    starts.push_back(tokens);
    tokens += rows;
  }
  assert(tokens == pass.Q.rows());
  std::vector<double> d_sinks(sequences.size() * config.heads);
  // A task is a key/value head of a sequence: nobody else adds to its dK, dV.
  pool.for_each(sequences.size() * config.kv_heads, [&](std::size_t task) {
    const std::size_t s = task / config.kv_heads;
    Tiles tiles;
    for (std::size_t i = 0; i < shared; ++i) {
      const std::size_t h = task % config.kv_heads * shared + i;
      const Head head =
          head_of(pass, dO, gradients, config, h, starts[s], sequences[s]);
      for (std::size_t q = 0; q < sequences[s]; q += kQueriesPerTile) {
        d_sinks[s * config.heads + h] += backward.run_tile(
            head, q, std::min(sequences[s], q + kQueriesPerTile), tiles);
      }
    }
  });
  if (gradients.sinks.empty()) return;
  for (std::size_t i = 0; i < d_sinks.size(); ++i) {
    gradients.sinks[i % config.heads] += static_cast<float>(d_sinks[i]);
  }
}

}  // namespace llmpress
