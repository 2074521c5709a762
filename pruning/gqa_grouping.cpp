#include "pruning/gqa_grouping.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>
#include <string>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "pruning/alike_groups.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

using Complex = std::complex<double>;
using Pair = std::pair<std::size_t, std::size_t>;

void require(bool holds, const std::string& what) {
  if (!holds) {
    fail(ErrorCode::kInvalidArgument, "key/value grouping: {}", what);
  }
}

void check_shapes(const AttentionWeights& weights, const AttentionShape& shape,
                  std::size_t new_kv_heads) {
  const auto& [heads, kv_heads, head_dim, pairs, rotary_dim] = shape;
  require(new_kv_heads >= 1 && kv_heads % new_kv_heads == 0,
          formatted("found {} new heads, wanted a divisor of {}", new_kv_heads,
                    kv_heads));
  require(kv_heads >= 1 && heads % kv_heads == 0 && head_dim >= 1 &&
              rotary_dim <= head_dim && rotary_dim % 2 == 0,
          formatted("found {} query heads for {} of {}, wanted a multiple and "
                    "an even rotary part",
                    heads, kv_heads, head_dim));
  const std::size_t d = weights.q.cols();
  const auto has = [](const MatrixF& M, std::size_t rows, std::size_t cols) {
    return M.rows() == rows && M.cols() == cols;
  };
  require(has(weights.q, heads * head_dim, d) &&
              has(weights.k, kv_heads * head_dim, d) &&
              has(weights.v, kv_heads * head_dim, d) &&
              weights.o.cols() == heads * head_dim,
          "the shapes of q, k, v and o do not belong to the heads");
  const auto fits = [](const std::vector<float>& bias, const MatrixF& W) {
    return bias.empty() || bias.size() == W.rows();
  };
  require(fits(weights.q_bias, weights.q) && fits(weights.k_bias, weights.k) &&
              fits(weights.v_bias, weights.v),
          "a bias does not have its weight's rows");
}

// The pairs of a head's dimensions that are one complex number each.
std::vector<Pair> complex_pairs(const AttentionShape& shape) {
  const std::size_t turning =
      shape.rotary_dim == 0 ? shape.head_dim : shape.rotary_dim;
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i < turning / 2; ++i) {
    pairs.push_back(shape.pairs == RotaryPairs::kHalves
                        ? Pair{i, i + turning / 2}
                        : Pair{2 * i, 2 * i + 1});
  }
  for (std::size_t i = turning; i < shape.head_dim; i += 2) {
    pairs.push_back({i, i + 1});
  }
  return pairs;
}

// W S W^T: the second moment of W x.
MatrixF output_moment(const MatrixF& W, ConstMatrixView S, ThreadPool& pool) {
  MatrixF WS(W.rows(), W.cols()), moment(W.rows(), W.rows());
  matmul(W.view(), S, WS.view(), pool);
  matmul_transposed(WS.view(), W.view(), moment.view(), pool);
  return moment;
}

// E[k_a conj(k_b)] of one pair of dimensions, from the keys' moment.
Complex pair_moment(const MatrixF& moment, std::size_t a, std::size_t b,
                    std::size_t head_dim, Pair pair) {
  const auto at = [&](std::size_t i, std::size_t j) {
    return static_cast<double>(moment(a * head_dim + i, b * head_dim + j));
  };
  const auto [x, y] = pair;
  return {at(x, x) + at(y, y), at(y, x) - at(x, y)};
}

struct Moments {
  MatrixF k, v;  // [kv_heads * head_dim]^2
};

// In [0, 2]: how much of two heads' keys one complex head can carry, plus how
// alike their values are up to a linear map.
MatrixF head_similarity(const Moments& moments, const AttentionShape& shape) {
  const std::size_t n = shape.kv_heads, h = shape.head_dim;
  Matrix<double> keys(n, n), values(n, n);
  const std::vector<Pair> pairs = complex_pairs(shape);
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = 0; b < n; ++b) {
      for (const Pair& pair : pairs) {
        keys(a, b) += std::abs(pair_moment(moments.k, a, b, h, pair));
      }
      for (std::size_t i = 0; i < h * h; ++i) {
        const auto v =
            static_cast<double>(moments.v(a * h + i / h, b * h + i % h));
        values(a, b) += v * v;
      }
    }
  }
  const auto normalized = [](const Matrix<double>& M, std::size_t a,
                             std::size_t b) {
    const double norm = std::sqrt(M(a, a) * M(b, b));
    return norm > 0 ? M(a, b) / norm : 0;
  };
  MatrixF similarity(n, n);
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = 0; b < n; ++b) {
      similarity(a, b) = static_cast<float>(
          normalized(keys, a, b) + std::sqrt(normalized(values, a, b)));
    }
  }
  return similarity;
}

// The weights with key/value heads, and their query heads, in another order.
AttentionWeights reordered(const AttentionWeights& weights,
                           const AttentionShape& shape,
                           std::span<const std::size_t> kv_order) {
  const std::size_t queries = shape.heads / shape.kv_heads * shape.head_dim;
  const auto kv = expand_units(kv_order, shape.head_dim);
  const auto q = expand_units(kv_order, queries);
  const auto bias = [](const std::vector<float>& b,
                       std::span<const std::size_t> rows) {
    return b.empty() ? b : select_values(b, rows);
  };
  return {
      select_rows(weights.q.view(), q),  select_rows(weights.k.view(), kv),
      select_rows(weights.v.view(), kv), select_columns(weights.o.view(), q),
      bias(weights.q_bias, q),           bias(weights.k_bias, kv),
      bias(weights.v_bias, kv)};
}

// M [n, n] in another order of its blocks of `width`.
MatrixF reordered_moment(const MatrixF& M, std::span<const std::size_t> order,
                         std::size_t width) {
  const auto indices = expand_units(order, width);
  return select_columns(select_rows(M.view(), indices).view(), indices);
}

struct Component {
  std::vector<Complex> c;  // of length sqrt(g), its sum real and not negative
  double carried = 0, total = 0;
};

// The first principal component of a Hermitian C [g, g], as the first of the
// real [[Re, -Im], [Im, Re]].
Component first_component(const Matrix<Complex>& C) {
  const std::size_t g = C.rows();
  MatrixF real(2 * g, 2 * g);
  Component component;
  for (std::size_t a = 0; a < g; ++a) {
    component.total += C(a, a).real();
    for (std::size_t b = 0; b < g; ++b) {
      real(a, b) = real(g + a, g + b) = static_cast<float>(C(a, b).real());
      real(g + a, b) = static_cast<float>(C(a, b).imag());
      real(a, g + b) = -real(g + a, b);
    }
  }
  const Svd svd = thin_svd(real.view());
  component.carried = static_cast<double>(svd.s[0]);
  Complex sum = 0;
  for (std::size_t a = 0; a < g; ++a) {
    component.c.emplace_back(static_cast<double>(svd.U(a, 0)),
                             static_cast<double>(svd.U(g + a, 0)));
    sum += component.c.back();
  }
  // Of this length, alike heads give k' = k_a and leave q as it is.
  const double length = std::sqrt(static_cast<double>(g));
  const Complex turn =
      std::abs(sum) > 1e-6 ? std::conj(sum) / std::abs(sum) : Complex(1);
  for (Complex& c : component.c) c *= turn * length;
  return component;
}

// (to_x, to_y) += conj(c) * scale * (x, y), element by element.
void add_turned(Complex c, double scale, std::span<const float> x,
                std::span<const float> y, std::span<float> to_x,
                std::span<float> to_y) {
  const auto re = static_cast<float>(c.real() * scale);
  const auto im = static_cast<float>(c.imag() * scale);
  for (std::size_t i = 0; i < x.size(); ++i) {
    to_x[i] += re * x[i] + im * y[i];
    to_y[i] += re * y[i] - im * x[i];
  }
}

// add_turned for two rows of W and of its bias.
struct Rows {
  const MatrixF& W;
  const std::vector<float>& bias;
};
void add_turned_rows(Complex c, double scale, Rows from, std::size_t from_row,
                     MatrixF& to, std::vector<float>& to_bias,
                     std::size_t to_row, Pair pair) {
  const auto [x, y] = pair;
  add_turned(c, scale, from.W.row(from_row + x), from.W.row(from_row + y),
             to.row(to_row + x), to.row(to_row + y));
  if (from.bias.empty()) return;
  const std::span<const float> bias = from.bias;
  add_turned(c, scale, bias.subspan(from_row + x, 1),
             bias.subspan(from_row + y, 1),
             std::span(to_bias).subspan(to_row + x, 1),
             std::span(to_bias).subspan(to_row + y, 1));
}

// Replaces q and k of reordered weights; returns the share of E|k|^2 lost.
double merge_keys(const AttentionShape& shape, std::size_t g,
                  const MatrixF& moment, AttentionWeights& weights) {
  const std::size_t h = shape.head_dim, groups = shape.kv_heads / g;
  const std::size_t queries = shape.heads / shape.kv_heads;  // of a kv head
  MatrixF q(weights.q.rows(), weights.q.cols());
  MatrixF k(groups * h, weights.k.cols());
  std::vector<float> q_bias(weights.q_bias.size());
  std::vector<float> k_bias(weights.k_bias.empty() ? 0 : k.rows());
  double carried = 0, total = 0;
  for (std::size_t group = 0; group < groups; ++group) {
    for (const Pair& pair : complex_pairs(shape)) {
      Matrix<Complex> C(g, g);
      for (std::size_t i = 0; i < g * g; ++i) {
        C(i / g, i % g) =
            pair_moment(moment, group * g + i / g, group * g + i % g, h, pair);
      }
      const Component component = first_component(C);
      carried += component.carried;
      total += component.total;
      for (std::size_t a = 0; a < g; ++a) {
        const std::size_t head = group * g + a;
        const Complex c = component.c[a];
        add_turned_rows(c, 1.0 / static_cast<double>(g),
                        {weights.k, weights.k_bias}, head * h, k, k_bias,
                        group * h, pair);
        for (std::size_t u = head * queries; u < (head + 1) * queries; ++u) {
          add_turned_rows(c, 1.0, {weights.q, weights.q_bias}, u * h, q, q_bias,
                          u * h, pair);
        }
      }
    }
  }
  weights.q = std::move(q);
  weights.k = std::move(k);
  weights.q_bias = std::move(q_bias);
  weights.k_bias = std::move(k_bias);
  return total > 0 ? std::max(0.0, 1 - carried / total) : 0;
}

// The block [size, size] of M that starts at (begin, begin).
MatrixF diagonal_block(const MatrixF& M, std::size_t begin, std::size_t size) {
  MatrixF block(size, size);
  for (std::size_t r = 0; r < size; ++r) {
    std::ranges::copy(M.row(begin + r).subspan(begin, size),
                      block.row(r).begin());
  }
  return block;
}

// o[:, at : at + n] <- scale o[:, at : at + n] B for B [n, n].
void multiply_columns(MatrixF& o, std::size_t at, ConstMatrixView B,
                      float scale, ThreadPool& pool) {
  const std::size_t n = B.rows();
  MatrixF part(o.rows(), n), product(o.rows(), n);
  for (std::size_t r = 0; r < o.rows(); ++r) {
    std::ranges::copy(o.row(r).subspan(at, n), part.row(r).begin());
  }
  matmul(part.view(), B, product.view(), pool, scale);
  for (std::size_t r = 0; r < o.rows(); ++r) {
    std::ranges::copy(product.row(r), o.row(r).subspan(at).begin());
  }
}

// Replaces v and o of reordered weights; returns the share of E|v|^2 lost.
double merge_values(const AttentionShape& shape, std::size_t g,
                    const MatrixF& moment, AttentionWeights& weights,
                    ThreadPool& pool) {
  const std::size_t h = shape.head_dim, groups = shape.kv_heads / g;
  const std::size_t queries = shape.heads / shape.kv_heads;
  // v' = B^T v / sqrt(g) and o' = sqrt(g) o B: the size that heads had.
  const auto length = std::sqrt(static_cast<float>(g));
  MatrixF v(groups * h, weights.v.cols());
  std::vector<float> v_bias(weights.v_bias.empty() ? 0 : v.rows());
  double carried = 0, total = 0;
  for (std::size_t group = 0; group < groups; ++group) {
    const std::size_t first = group * g * h;
    const Svd svd = thin_svd(diagonal_block(moment, first, g * h).view());
    MatrixF Bt(h, g * h);
    for (std::size_t i = 0; i < g * h; ++i) {
      total += static_cast<double>(svd.s[i]);
      if (i < h) carried += static_cast<double>(svd.s[i]);
      for (std::size_t j = 0; j < h; ++j) Bt(j, i) = svd.U(i, j);
    }
    matmul(Bt.view(), weights.v.view().rows_slice(first, g * h),
           v.view().rows_slice(group * h, h), pool, 1 / length);
    for (std::size_t j = 0; j < v_bias.size() / groups; ++j) {
      for (std::size_t i = 0; i < g * h; ++i) {
        v_bias[group * h + j] += Bt(j, i) * weights.v_bias[first + i] / length;
      }
    }
    for (std::size_t a = 0; a < g; ++a) {
      MatrixF B(h, h);
      for (std::size_t i = 0; i < h * h; ++i) {
        B(i / h, i % h) = svd.U(a * h + i / h, i % h);
      }
      const std::size_t head = group * g + a;
      for (std::size_t u = head * queries; u < (head + 1) * queries; ++u) {
        multiply_columns(weights.o, u * h, B.view(), length, pool);
      }
    }
  }
  weights.v = std::move(v);
  weights.v_bias = std::move(v_bias);
  return total > 0 ? std::max(0.0, 1 - carried / total) : 0;
}

// The mean of every g consecutive blocks of `h` rows.
MatrixF mean_of_heads(ConstMatrixView W, std::size_t g, std::size_t h) {
  MatrixF mean(W.rows() / g, W.cols());
  for (std::size_t r = 0; r < W.rows(); ++r) {
    const auto to = mean.row(r / (g * h) * h + r % h);
    for (std::size_t c = 0; c < to.size(); ++c) {
      to[c] += W(r, c) / static_cast<float>(g);
    }
  }
  return mean;
}

std::vector<float> mean_of_heads(const std::vector<float>& bias, std::size_t g,
                                 std::size_t h) {
  const MatrixF mean =
      mean_of_heads(ConstMatrixView(bias, bias.size(), 1), g, h);
  return {mean.data().begin(), mean.data().end()};
}

}  // namespace

GroupedAttention group_kv_heads_by_mean(const AttentionWeights& weights,
                                        const AttentionShape& shape,
                                        std::size_t new_kv_heads) {
  check_shapes(weights, shape, new_kv_heads);
  const std::size_t g = shape.kv_heads / new_kv_heads, h = shape.head_dim;
  GroupedAttention grouped;
  grouped.kv_order.resize(shape.kv_heads);
  std::iota(grouped.kv_order.begin(), grouped.kv_order.end(), 0u);
  grouped.weights = weights;
  grouped.weights.k = mean_of_heads(weights.k.view(), g, h);
  grouped.weights.v = mean_of_heads(weights.v.view(), g, h);
  grouped.weights.k_bias = mean_of_heads(weights.k_bias, g, h);
  grouped.weights.v_bias = mean_of_heads(weights.v_bias, g, h);
  return grouped;
}

GroupedAttention group_kv_heads_calibrated(const AttentionWeights& weights,
                                           const AttentionShape& shape,
                                           std::size_t new_kv_heads,
                                           ConstMatrixView S,
                                           ThreadPool& pool) {
  check_shapes(weights, shape, new_kv_heads);
  require(shape.head_dim % 2 == 0,
          formatted("found an odd head_dim {}, wanted pairs of dimensions",
                    shape.head_dim));
  require(S.rows() == weights.q.cols() && S.cols() == S.rows(),
          "the second moment does not have the attention's width");
  const std::size_t g = shape.kv_heads / new_kv_heads, h = shape.head_dim;
  if (g == 1) return group_kv_heads_by_mean(weights, shape, new_kv_heads);
  Moments moments{output_moment(weights.k, S, pool),
                  output_moment(weights.v, S, pool)};
  GroupedAttention grouped;
  grouped.kv_order = group_alike(head_similarity(moments, shape), g);
  grouped.weights = reordered(weights, shape, grouped.kv_order);
  grouped.key_loss =
      merge_keys(shape, g, reordered_moment(moments.k, grouped.kv_order, h),
                 grouped.weights);
  grouped.value_loss =
      merge_values(shape, g, reordered_moment(moments.v, grouped.kv_order, h),
                   grouped.weights, pool);
  return grouped;
}

}  // namespace llmpress
