#include "compress/kernels/attention_backward.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/strided_product.h"
#include "compress/kernels/aligned_buffer.h"
#include "compress/kernels/attention_kernels.h"
#include "compress/kernels/dense_kernels.h"
#include "compress/kernels/loss_kernels.h"

namespace llmpress {
namespace {

// A multiple of the register tiles' 6 and 12 rows.
constexpr std::size_t kQueriesPerTile = 48;

// One head of one sequence: rows are its tokens.
struct Head {
  std::size_t index = 0;
  std::size_t sequence = 0;
  StridedIn Q{}, K{}, V{}, O{}, dO{};
  StridedOut dQ{}, dK{}, dV{};
};

// A right side of the kernels' products, in panels.
struct Packed {
  float* data = nullptr;
  std::size_t panel = 0;  // floats from panel to panel
};

// Buffers of a thread.
struct Tiles {
  std::vector<float> P{}, dP{};
  AlignedBuffer packed{};
  // Of a head: K^T, V^T [dim, keys], K [keys, dim]; of its tile: Q, dO.
  Packed keys_across{}, values_across{}, keys{}, queries{}, gradients{};
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
                std::span<float> z, const LossKernels& kernels) {
  float max = kernels.max(z.data(), z.size());
  if (!config.sinks.empty()) max = std::max(max, config.sinks[head]);
  double sum = kernels.exp_and_sum(z.data(), z.size(), max, z.data());
  double sink = 0;
  if (!config.sinks.empty()) {
    sink = std::exp(double{config.sinks[head]} - double{max});
    sum += sink;
  }
  const auto factor = static_cast<float>(1 / sum);
  for (float& x : z) x *= factor;
  return static_cast<float>(sink / sum);
}

// Which keys a query does not leave out; counted from the first that it sees.
class KeptKeys {
 public:
  KeptKeys(const AttentionConfig& config, const Head& head, std::size_t query)
      : dropout_(config.dropout.of(head.sequence * config.heads + head.index)
                     .of(query)) {}
  float factor(std::size_t j) const { return dropout_.factor(j); }

 private:
  Dropout dropout_;
};

// One query of a forward pass: its probabilities from products q . k, those that
// are left out as 0.
void drop_row(const AttentionConfig& config, const Head& head,
              std::size_t query, std::size_t first, std::span<float> p,
              Isa isa) {
  const std::size_t from = first_key(config, query) - first;
  const std::size_t to = query + 1 - first;
  std::fill(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(from), 0.0f);
  std::fill(p.begin() + static_cast<std::ptrdiff_t>(to), p.end(), 0.0f);
  p = p.subspan(from, to - from);
  score(config, head.index, p.size() - 1, p);
  (void)normalize(config, head.index, p, loss_kernels(isa));
  const KeptKeys kept(config, head, query);
  for (std::size_t j = 0; j < p.size(); ++j) p[j] *= kept.factor(j);
}

class Backward {
 public:
  Backward(const AttentionConfig& config, Isa isa)
      : config_(config),
        products_(dense_kernels(isa)),
        kernels_(loss_kernels(isa)) {}

  // Before the first tile of a head.
  void pack_head(const Head& head, Tiles& tiles) const {
    if (products_ == nullptr) return;
    const std::size_t width = products_->panel_cols, tokens = head.K.rows;
    const std::size_t d = padded(head.K.cols), v = padded(head.V.cols);
    const std::size_t keys = padded(tokens);
    const std::size_t floats = keys * (head.K.cols + head.V.cols) + tokens * d +
                               kQueriesPerTile * (d + v);
    if (tiles.packed.size() < floats * sizeof(float)) {
      tiles.packed = AlignedBuffer(floats * sizeof(float));
    }
    auto* at = reinterpret_cast<float*>(tiles.packed.data());
    const auto next = [&](std::size_t depth, std::size_t columns) {
      const Packed part{at, width * depth};
      at += columns * depth;
      return part;
    };
    tiles.keys_across = next(head.K.cols, keys);
    tiles.values_across = next(head.V.cols, keys);
    tiles.keys = next(tokens, d);
    tiles.queries = next(kQueriesPerTile, d);
    tiles.gradients = next(kQueriesPerTile, v);
    pack_across(head.K, tiles.keys_across);
    pack_across(head.V, tiles.values_across);
    pack(head.K, tiles.keys);
  }

  // Adds the gradients of queries [begin, end); returns that of the sink.
  double run_tile(const Head& head, std::size_t begin, std::size_t end,
                  Tiles& tiles) const {
    // Whole panels of keys.
    const std::size_t unit = products_ == nullptr ? 1 : products_->panel_cols;
    const std::size_t first = first_key(config_, begin) / unit * unit;
    const std::size_t keys = end - first;
    const TileParts parts{.Q = head.Q.rows_slice(begin, end - begin),
                          .dO = head.dO.rows_slice(begin, end - begin),
                          .K = head.K.rows_slice(first, keys),
                          .V = head.V.rows_slice(first, keys),
                          .P = tile(tiles.P, end - begin, padded(keys)),
                          .dP = tile(tiles.dP, end - begin, padded(keys)),
                          .dQ = head.dQ.rows_slice(begin, end - begin),
                          .dK = head.dK.rows_slice(first, keys),
                          .dV = head.dV.rows_slice(first, keys),
                          .first = first};
    score_tile(parts, tiles);
    double d_sink = 0;
    for (std::size_t r = 0; r < end - begin; ++r) {
      d_sink +=
          run_row(head, begin + r, first, row(parts.P, r), row(parts.dP, r));
    }
    add_tile(parts, tiles);
    return d_sink;
  }

 private:
  // Rows of a tile of queries and of the keys [first, ...) that it sees.
  struct TileParts {
    StridedIn Q{}, dO{}, K{}, V{};
    StridedOut P{}, dP{}, dQ{}, dK{}, dV{};
    std::size_t first = 0;
  };

  std::size_t padded(std::size_t columns) const {
    if (products_ == nullptr) return columns;
    return ceil_div(columns, products_->panel_cols) * products_->panel_cols;
  }

  // X as a right side [rows, cols].
  void pack(const StridedIn& X, const Packed& to) const {
    products_->pack_b({.from = X.data,
                       .stride = X.stride,
                       .depth = X.rows,
                       .columns = X.cols,
                       .to = to.data,
                       .panel = to.panel});
  }
  // X^T as a right side.
  void pack_across(const StridedIn& X, const Packed& to) const {
    products_->pack_b_transposed({.from = X.data,
                                  .stride = X.stride,
                                  .depth = X.cols,
                                  .columns = X.rows,
                                  .to = to.data,
                                  .panel = to.panel});
  }

  // C [rows, cols] (+)= A B, A's sums `depth` long.
  void multiply_tile(DenseLayout layout, const StridedIn& A, const Packed& B,
                     const StridedOut& C, std::size_t depth,
                     Accumulate mode) const {
    products_->multiply({.layout = layout,
                         .a = A.data,
                         .a_stride = A.stride,
                         .b = B.data,
                         .b_panel = B.panel,
                         .c = C.data,
                         .c_stride = C.stride,
                         .rows = C.rows,
                         .cols = C.cols,
                         .depth = depth,
                         .accumulate = mode == Accumulate::kAdd});
  }

  // P = Q K^T, dP = dO V^T, for all keys of the panels.
  void score_tile(const TileParts& t, const Tiles& tiles) const {
    constexpr auto kMode = Accumulate::kOverwrite;
    if (products_ == nullptr) {
      multiply_transposed(t.Q, t.K, t.P, 1, kMode);
      return multiply_transposed(t.dO, t.V, t.dP, 1, kMode);
    }
    const auto from_first = [&](Packed across) {
      across.data += t.first / products_->panel_cols * across.panel;
      return across;
    };
    multiply_tile(DenseLayout::kRows, t.Q, from_first(tiles.keys_across), t.P,
                  t.Q.cols, kMode);
    multiply_tile(DenseLayout::kRows, t.dO, from_first(tiles.values_across),
                  t.dP, t.dO.cols, kMode);
  }

  // dV += P^T dO, dQ += dP K, dK += dP^T Q.
  void add_tile(const TileParts& t, const Tiles& tiles) const {
    constexpr auto kMode = Accumulate::kAdd;
    const StridedIn P = as_input(t.P), dP = as_input(t.dP);
    if (products_ == nullptr) {
      multiply_first_transposed(P, t.dO, t.dV, 1, kMode);
      multiply(dP, t.K, t.dQ, 1, kMode);
      return multiply_first_transposed(dP, t.Q, t.dK, 1, kMode);
    }
    pack(t.Q, tiles.queries);
    pack(t.dO, tiles.gradients);
    Packed keys = tiles.keys;
    keys.data += t.first * products_->panel_cols;
    multiply_tile(DenseLayout::kColumns, P, tiles.gradients, t.dV, P.rows,
                  kMode);
    multiply_tile(DenseLayout::kRows, dP, keys, t.dQ, t.K.rows, kMode);
    multiply_tile(DenseLayout::kColumns, dP, tiles.queries, t.dK, dP.rows,
                  kMode);
  }

  static StridedOut tile(std::vector<float>& buffer, std::size_t rows,
                         std::size_t keys) {
    buffer.resize(std::max(buffer.size(), rows * keys));
    return {buffer.data(), rows, keys, keys};
  }

  // One query: p from products q . k to probabilities, d from dO V^T to the
  // gradient of the products times the scale. Keys that it does not see become
  // zeros.
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
    for (float& x : p) x *= config_.scale;
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
    const float sink = normalize(config_, head.index, p, kernels_);
    const float mean = dot(row(head.dO, query), row(head.O, query));
    if (config_.dropout.on()) {
      const KeptKeys kept(config_, head, query);
      for (std::size_t j = 0; j < p.size(); ++j) {
        const float m = kept.factor(j);
        d[j] = config_.scale * p[j] * (m * d[j] - mean);
        p[j] *= m;
      }
      return -static_cast<double>(sink) * static_cast<double>(mean);
    }
    for (std::size_t j = 0; j < p.size(); ++j) {
      d[j] = config_.scale * p[j] * (d[j] - mean);
    }
    return -static_cast<double>(sink) * static_cast<double>(mean);
  }

  const AttentionConfig& config_;
  const DenseKernels* products_;  // null: BLAS
  const LossKernels& kernels_;
};

Head head_of(const AttentionPass& pass, ConstMatrixView dO,
             const AttentionGradients& to, const AttentionConfig& c,
             std::size_t head, std::size_t sequence, std::size_t first,
             std::size_t rows) {
  const std::size_t kv = head / (c.heads / c.kv_heads);
  const auto part = [&](auto X, std::size_t at, std::size_t width) {
    return columns_of(X, at * width, width).rows_slice(first, rows);
  };
  return {.index = head,
          .sequence = sequence,
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

void attention_dropped(ConstMatrixView Q,
                       std::span<const AttentionSegment> segments,
                       const AttentionConfig& config, MatrixView<float> O,
                       ThreadPool& pool, Isa isa) {
  const auto rows_of = [](const KvView& view, std::size_t rows, std::size_t at,
                          std::size_t width) {
    const std::size_t stride = view.row_bytes / sizeof(float);
    return StridedIn{reinterpret_cast<const float*>(view.data) + at * width,
                     rows, width, stride};
  };
  pool.for_each(segments.size() * config.heads, [&](std::size_t task) {
    const std::size_t s = task / config.heads, h = task % config.heads;
    const std::size_t kv = h / (config.heads / config.kv_heads);
    const AttentionSegment& segment = segments[s];
    assert(segment.past == 0);
    const std::size_t all = segment.queries;
    const Head head{.index = h,
                    .sequence = s,
                    .Q = columns_of(Q, h * config.head_dim, config.head_dim)
                             .rows_slice(segment.first_query, all),
                    .K = rows_of(segment.keys, all, kv, config.head_dim),
                    .V = rows_of(segment.values, all, kv, config.value_dim)};
    const StridedOut to = columns_of(O, h * config.value_dim, config.value_dim)
                              .rows_slice(segment.first_query, all);
    std::vector<float> buffer;
    for (std::size_t q = 0; q < all; q += kQueriesPerTile) {
      const std::size_t end = std::min(all, q + kQueriesPerTile);
      const std::size_t first = first_key(config, q), keys = end - first;
      buffer.resize(std::max(buffer.size(), (end - q) * keys));
      const StridedOut P{buffer.data(), end - q, keys, keys};
      multiply_transposed(head.Q.rows_slice(q, end - q),
                          head.K.rows_slice(first, keys), P, config.scale,
                          Accumulate::kOverwrite);
      for (std::size_t r = 0; r < P.rows; ++r) {
        drop_row(config, head, q + r, first, row(P, r), isa);
      }
      multiply(as_input(P), head.V.rows_slice(first, keys),
               to.rows_slice(q, end - q), 1, Accumulate::kOverwrite);
    }
  });
}

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
    static thread_local Tiles tiles;
    for (std::size_t i = 0; i < shared; ++i) {
      const std::size_t h = task % config.kv_heads * shared + i;
      const Head head =
          head_of(pass, dO, gradients, config, h, s, starts[s], sequences[s]);
      backward.pack_head(head, tiles);
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
