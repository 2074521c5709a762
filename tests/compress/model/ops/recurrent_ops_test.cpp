// Operations with a state against sums written out in double precision: two
// sequences at once, and one that goes on from its cache.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "compress/model/ops/convolution.h"
#include "compress/model/ops/delta_rule.h"
#include "compress/model/ops/linear_attention.h"
#include "compress/model/ops/rg_lru.h"
#include "compress/model/ops/rwkv.h"
#include "compress/model/ops/selective_scan.h"
#include "compress/model/ops/state_space.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using testing::random_matrix;

constexpr std::size_t kTokens = 9;
constexpr float kTolerance = 2e-5f;

std::vector<float> random_vector(std::size_t size, Rng& rng, double scale = 1) {
  std::vector<float> v(size);
  for (float& x : v) x = static_cast<float>(rng.normal() * scale);
  return v;
}

MatrixF stacked(const MatrixF& a, const MatrixF& b) {
  MatrixF both(a.rows() + b.rows(), a.cols());
  for (std::size_t r = 0; r < both.rows(); ++r) {
    std::ranges::copy(
        r < a.rows() ? a.view().row(r) : b.view().row(r - a.rows()),
        both.view().row(r).begin());
  }
  return both;
}

struct Case {
  std::vector<std::vector<float>> parameters{};
  std::size_t state = 0;
};

template <class Op>
MatrixF run_rows(const Op& op, const Case& with,
                 const std::vector<MatrixF>& inputs,
                 const std::vector<Segment>& segments) {
  ThreadPool pool(2);
  OpContext context;
  context.segments = segments;
  context.parameters = with.parameters;
  context.pool = &pool;
  std::vector<Activations> values;
  for (const MatrixF& rows : inputs) values.push_back({.rows = rows});
  Activations out;
  OpArguments arguments;
  for (Activations& value : values) {
    arguments.in.push_back(&value);
    arguments.last_use.push_back(false);
  }
  arguments.out = {&out};
  run(op, context, arguments);
  return std::move(out.rows);
}

void expect_rows(const MatrixF& expected, std::size_t first,
                 const MatrixF& found, std::size_t at, std::size_t rows) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < expected.cols(); ++c) {
      const float e = expected(first + r, c);
      ASSERT_NEAR(found(at + r, c), e, kTolerance * (1 + std::abs(e)))
          << "row " << first + r << ", column " << c;
    }
  }
}

// `naive` gives the output of one whole sequence from its inputs.
using Naive = std::function<MatrixF(const std::vector<MatrixF>&)>;

template <class Op>
void expect_op(const Op& op, const Case& with, const std::vector<MatrixF>& a,
               const std::vector<MatrixF>& b, const Naive& naive) {
  const MatrixF of_a = naive(a), of_b = naive(b);
  constexpr std::size_t kFirst = 4;
  KvCache cache({{CacheSlot{.state = with.state}}}, kTokens);
  // b's first tokens between the whole of a, and the rest of b after it.
  std::vector<MatrixF> both, rest;
  for (std::size_t i = 0; i < a.size(); ++i) {
    both.push_back(stacked(MatrixF(b[i].view().rows_slice(0, kFirst)), a[i]));
    rest.push_back(MatrixF(b[i].view().rows_slice(kFirst, kTokens - kFirst)));
  }
  const MatrixF first =
      run_rows(op, with, both, {{kFirst, 0, &cache}, {kTokens, 0, nullptr}});
  expect_rows(of_b, 0, first, 0, kFirst);
  expect_rows(of_a, 0, first, kFirst, kTokens);
  const MatrixF second =
      run_rows(op, with, rest, {{kTokens - kFirst, kFirst, &cache}});
  expect_rows(of_b, kFirst, second, 0, kTokens - kFirst);
}

std::vector<MatrixF> random_inputs(const std::vector<std::size_t>& widths,
                                   Rng& rng) {
  std::vector<MatrixF> inputs;
  for (const std::size_t width : widths) {
    inputs.push_back(random_matrix(kTokens, width, rng));
  }
  return inputs;
}

double soft(double x) { return std::log1p(std::exp(x)); }
double sigm(double x) { return 1 / (1 + std::exp(-x)); }

TEST(RecurrentOps, ConvolutionSumsTheLastInputsOfEachChannel) {
  Rng rng(1);
  const std::size_t channels = 5, kernel = 3;
  const Case with{
      {random_vector(channels * kernel, rng), random_vector(channels, rng)},
      (kernel - 1) * channels};
  const ConvolutionOp op{.kernel = kernel, .weight = 0, .bias = 1};
  const auto naive = [&](const std::vector<MatrixF>& in) {
    MatrixF y(kTokens, channels);
    for (std::size_t t = 0; t < kTokens; ++t) {
      for (std::size_t c = 0; c < channels; ++c) {
        double sum = with.parameters[1][c];
        for (std::size_t k = 0; k < kernel && k <= t; ++k) {
          sum += double{with.parameters[0][c * kernel + kernel - 1 - k]} *
                 double{in[0](t - k, c)};
        }
        y(t, c) = static_cast<float>(sum);
      }
    }
    return y;
  };
  expect_op(op, with, random_inputs({channels}, rng),
            random_inputs({channels}, rng), naive);
}

TEST(RecurrentOps, StateSpaceSumsWhatEveryTokenLeft) {
  Rng rng(2);
  const std::size_t H = 4, P = 3, G = 2, N = 5;
  const Case with{{random_vector(H, rng, 0.5), random_vector(H, rng),
                   random_vector(H, rng)},
                  H * P * N};
  const StateSpaceOp op{.heads = H,
                        .head_dim = P,
                        .groups = G,
                        .state = N,
                        .A_log = 0,
                        .D = 1,
                        .dt_bias = 2,
                        .dt_min = 0.4f,
                        .dt_max = 1.5f};
  const auto naive = [&](const std::vector<MatrixF>& in) {
    MatrixF y(kTokens, H * P);
    for (std::size_t h = 0; h < H; ++h) {
      const std::size_t g = h / (H / G);
      const auto d = [&](std::size_t t) {
        return std::clamp(
            soft(double{in[3](t, h)} + double{with.parameters[2][h]}),
            double{0.4f}, 1.5);
      };
      const double A = -std::exp(double{with.parameters[0][h]});
      for (std::size_t t = 0; t < kTokens; ++t) {
        for (std::size_t p = 0; p < P; ++p) {
          double sum =
              double{with.parameters[1][h]} * double{in[0](t, h * P + p)};
          double passed = 0;  // time since token s
          for (std::size_t s = t + 1; s-- > 0;) {
            double product = 0;
            for (std::size_t n = 0; n < N; ++n) {
              product +=
                  double{in[1](s, g * N + n)} * double{in[2](t, g * N + n)};
            }
            sum += std::exp(A * passed) * d(s) * double{in[0](s, h * P + p)} *
                   product;
            passed += d(s);
          }
          y(t, h * P + p) = static_cast<float>(sum);
        }
      }
    }
    return y;
  };
  const std::vector<std::size_t> widths = {H * P, G * N, G * N, H};
  expect_op(op, with, random_inputs(widths, rng), random_inputs(widths, rng),
            naive);
}

TEST(RecurrentOps, SelectiveScanSumsWhatEveryTokenLeft) {
  Rng rng(3);
  const std::size_t C = 6, N = 3;
  const Case with{{random_vector(C * N, rng, 0.5), random_vector(C, rng)},
                  C * N};
  const SelectiveScanOp op{.channels = C, .state = N, .A_log = 0, .D = 1};
  const auto naive = [&](const std::vector<MatrixF>& in) {
    MatrixF y(kTokens, C);
    for (std::size_t t = 0; t < kTokens; ++t) {
      for (std::size_t c = 0; c < C; ++c) {
        double sum = double{with.parameters[1][c]} * double{in[0](t, c)};
        double passed = 0;
        for (std::size_t s = t + 1; s-- > 0;) {
          const double d = soft(double{in[1](s, c)});
          for (std::size_t n = 0; n < N; ++n) {
            const double A = -std::exp(double{with.parameters[0][c * N + n]});
            sum += std::exp(A * passed) * d * double{in[0](s, c)} *
                   double{in[2](s, n)} * double{in[3](t, n)};
          }
          passed += d;
        }
        y(t, c) = static_cast<float>(sum);
      }
    }
    return y;
  };
  const std::vector<std::size_t> widths = {C, C, N, N};
  expect_op(op, with, random_inputs(widths, rng), random_inputs(widths, rng),
            naive);
}

TEST(RecurrentOps, DeltaRuleReplacesWhatAKeyHeld) {
  Rng rng(4);
  const std::size_t K = 2, dk = 3, V = 4, dv = 5;
  const Case with{{random_vector(V, rng, 0.5), random_vector(V, rng)},
                  V * dk * dv};
  const DeltaRuleOp op{.key_heads = K,
                       .key_dim = dk,
                       .value_heads = V,
                       .value_dim = dv,
                       .A_log = 0,
                       .dt_bias = 1};
  const auto naive = [&](const std::vector<MatrixF>& in) {
    MatrixF o(kTokens, V * dv);
    for (std::size_t h = 0; h < V; ++h) {
      const std::size_t at = h / (V / K) * dk;
      std::vector<double> S(dk * dv, 0.0);
      for (std::size_t t = 0; t < kTokens; ++t) {
        double qq = 1e-6, kk = 1e-6;
        for (std::size_t i = 0; i < dk; ++i) {
          qq += double{in[0](t, at + i)} * double{in[0](t, at + i)};
          kk += double{in[1](t, at + i)} * double{in[1](t, at + i)};
        }
        const double keep =
            std::exp(-std::exp(double{with.parameters[0][h]}) *
                     soft(double{in[3](t, h)} + double{with.parameters[1][h]}));
        for (std::size_t j = 0; j < dv; ++j) {
          double held = 0, sum = 0;
          for (std::size_t i = 0; i < dk; ++i) {
            S[i * dv + j] *= keep;
            held += S[i * dv + j] * double{in[1](t, at + i)} / std::sqrt(kk);
          }
          const double change =
              sigm(double{in[4](t, h)}) * (double{in[2](t, h * dv + j)} - held);
          for (std::size_t i = 0; i < dk; ++i) {
            S[i * dv + j] += change * double{in[1](t, at + i)} / std::sqrt(kk);
            sum += S[i * dv + j] * double{in[0](t, at + i)} /
                   std::sqrt(qq * static_cast<double>(dk));
          }
          o(t, h * dv + j) = static_cast<float>(sum);
        }
      }
    }
    return o;
  };
  const std::vector<std::size_t> widths = {K * dk, K * dk, V * dv, V, V};
  expect_op(op, with, random_inputs(widths, rng), random_inputs(widths, rng),
            naive);
}

TEST(RecurrentOps, LinearAttentionFadesWithDistance) {
  Rng rng(5);
  const std::size_t H = 2, d = 3;
  const Case with{{{0.3f, 0.05f}}, H * d * d};
  const LinearAttentionOp op{.heads = H, .head_dim = d, .rate = 0};
  const auto naive = [&](const std::vector<MatrixF>& in) {
    MatrixF o(kTokens, H * d);
    for (std::size_t t = 0; t < kTokens; ++t) {
      for (std::size_t c = 0; c < H * d; ++c) {
        const std::size_t h = c / d;
        double sum = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          double product = 0;
          for (std::size_t i = h * d; i < (h + 1) * d; ++i) {
            product += double{in[0](t, i)} * double{in[1](s, i)};
          }
          sum += std::exp(-double{with.parameters[0][h]} *
                          static_cast<double>(t - s)) *
                 product * double{in[2](s, c)};
        }
        o(t, c) = static_cast<float>(sum);
      }
    }
    return o;
  };
  const std::vector<std::size_t> widths(3, H * d);
  expect_op(op, with, random_inputs(widths, rng), random_inputs(widths, rng),
            naive);
}

TEST(RecurrentOps, RgLruStartsFromItsFirstInput) {
  Rng rng(6);
  const std::size_t blocks = 2, unit = 3, width = blocks * unit;
  const Case with{{random_vector(width * unit, rng), random_vector(width, rng),
                   random_vector(width * unit, rng), random_vector(width, rng),
                   random_vector(width, rng, 0.3)},
                  width};
  const RgLruOp op{.width = width,
                   .blocks = blocks,
                   .input_weight = 0,
                   .input_bias = 1,
                   .recurrent_weight = 2,
                   .recurrent_bias = 3,
                   .decay = 4};
  const auto naive = [&](const std::vector<MatrixF>& in) {
    const auto gate = [&](std::size_t t, std::size_t c, std::size_t weight) {
      double sum = with.parameters[weight + 1][c];
      const std::size_t b = c / unit, j = c % unit;
      for (std::size_t i = 0; i < unit; ++i) {
        sum += double{in[0](t, b * unit + i)} *
               double{with.parameters[weight][(b * unit + i) * unit + j]};
      }
      return sigm(sum);
    };
    MatrixF y(kTokens, width);
    for (std::size_t c = 0; c < width; ++c) {
      double h = 0;
      for (std::size_t t = 0; t < kTokens; ++t) {
        const double a =
            std::exp(-8 * soft(double{with.parameters[4][c]}) * gate(t, c, 2));
        const double x = gate(t, c, 0) * double{in[0](t, c)};
        h = t == 0 ? x : a * h + std::sqrt(1 - a * a) * x;
        y(t, c) = static_cast<float>(h);
      }
    }
    return y;
  };
  expect_op(op, with, random_inputs({width}, rng), random_inputs({width}, rng),
            naive);
}

TEST(RecurrentOps, TokenShiftGivesTheTokenBefore) {
  Rng rng(7);
  const std::size_t width = 4;
  const auto naive = [&](const std::vector<MatrixF>& in) {
    MatrixF y(kTokens, width);
    for (std::size_t t = 1; t < kTokens; ++t) {
      for (std::size_t c = 0; c < width; ++c) y(t, c) = in[0](t - 1, c);
    }
    return y;
  };
  expect_op(TokenShiftOp{}, {{}, width}, random_inputs({width}, rng),
            random_inputs({width}, rng), naive);
}

// Keys far apart, so that a sum of exponentials without a maximum overflows.
TEST(RecurrentOps, WkvIsAMeanOfTheValuesAlsoForLargeKeys) {
  Rng rng(8);
  const std::size_t C = 6;
  const Case with{{random_vector(C, rng), random_vector(C, rng)}, 3 * C};
  const WkvOp op{.channels = C, .decay = 0, .bonus = 1};
  const auto naive = [&](const std::vector<MatrixF>& in) {
    MatrixF y(kTokens, C);
    for (std::size_t t = 0; t < kTokens; ++t) {
      for (std::size_t c = 0; c < C; ++c) {
        double a = 0, b = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          const double since = static_cast<double>(t - s) - 1;
          const double power =
              double{in[0](s, c)} +
              (s == t ? double{with.parameters[1][c]}
                      : -since * std::exp(double{with.parameters[0][c]}));
          a += std::exp(power) * double{in[1](s, c)};
          b += std::exp(power);
        }
        y(t, c) = static_cast<float>(a / b);
      }
    }
    return y;
  };
  const auto inputs = [&] {
    return std::vector<MatrixF>{random_matrix(kTokens, C, rng, 60),
                                random_matrix(kTokens, C, rng)};
  };
  expect_op(op, with, inputs(), inputs(), naive);
}

}  // namespace
}  // namespace llmpress
