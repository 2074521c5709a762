#include "compress/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using testing::random_matrix;

// The definition, with all scores of one query at once, in double.
std::vector<double> attend_naively(std::span<const float> q,
                                   ConstMatrixView keys, ConstMatrixView values,
                                   const AttentionConfig& c, std::size_t head,
                                   std::size_t position) {
  const std::size_t value_dim = c.value_dim == 0 ? c.head_dim : c.value_dim;
  const std::size_t kv_head = head / (c.heads / c.kv_heads);
  const std::size_t offset = kv_head * c.head_dim;
  std::size_t begin =
      c.window != 0 && position >= c.window ? position - c.window + 1 : 0;
  while (c.chunk != 0 && begin / c.chunk != position / c.chunk) ++begin;
  std::vector<double> p;
  double max = -1e300, sum = 0;
  for (std::size_t j = begin; j <= position; ++j) {
    double z = 0;
    for (std::size_t d = 0; d < c.head_dim; ++d) {
      z += double{q[d]} * double{keys(j, offset + d)};
    }
    z *= double{c.scale};
    if (c.softcap != 0) z = c.softcap * std::tanh(z / c.softcap);
    if (!c.slopes.empty()) {
      z -= double{c.slopes[head]} * static_cast<double>(position - j);
    }
    p.push_back(z);
    max = std::max(max, z);
  }
  for (double& z : p) sum += z = std::exp(z - max);
  if (!c.sinks.empty()) sum += std::exp(double{c.sinks[head]} - max);
  std::vector<double> o(value_dim);
  for (std::size_t j = begin; j <= position; ++j) {
    for (std::size_t d = 0; d < value_dim; ++d) {
      o[d] += p[j - begin] / sum * double{values(j, kv_head * value_dim + d)};
    }
  }
  return o;
}

struct Sequence {
  std::size_t past, queries;
  MatrixF keys, values;
};

Sequence random_sequence(const AttentionConfig& c, std::size_t past,
                         std::size_t queries, Rng& rng) {
  const std::size_t value_dim = c.value_dim == 0 ? c.head_dim : c.value_dim;
  return {past, queries,
          random_matrix(past + queries, c.kv_heads * c.head_dim, rng),
          random_matrix(past + queries, c.kv_heads * value_dim, rng)};
}

std::vector<AttentionSegment> segments_of(const std::vector<Sequence>& all) {
  std::vector<AttentionSegment> segments;
  std::size_t row = 0;
  for (const Sequence& s : all) {
    segments.push_back({.first_query = row,
                        .queries = s.queries,
                        .past = s.past,
                        .keys = kv_view(s.keys.view()),
                        .values = kv_view(s.values.view())});
    row += s.queries;
  }
  return segments;
}

// Rounding of scores of size up to |z| moves a probability by |z| units in the
// last place; the values are of size 1.
void expect_naive(const std::vector<Sequence>& all, ConstMatrixView Q,
                  const AttentionConfig& c, const MatrixF& O,
                  const std::string& what) {
  std::size_t row = 0;
  for (const Sequence& s : all) {
    for (std::size_t r = 0; r < s.queries; ++r, ++row) {
      for (std::size_t h = 0; h < c.heads; ++h) {
        const auto wanted =
            attend_naively(Q.row(row).subspan(h * c.head_dim, c.head_dim),
                           s.keys.view(), s.values.view(), c, h, s.past + r);
        for (std::size_t d = 0; d < wanted.size(); ++d) {
          ASSERT_NEAR(O(row, h * wanted.size() + d), wanted[d], 2e-5)
              << what << ", row " << row << ", head " << h;
        }
      }
    }
  }
}

// Sequences of one and of many queries, with and without a past.
void expect_definition(const AttentionConfig& c, Rng& rng,
                       const std::string& what) {
  const std::vector<Sequence> all{
      random_sequence(c, 0, 1, rng), random_sequence(c, 0, 150, rng),
      random_sequence(c, 203, 1, rng), random_sequence(c, 95, 37, rng)};
  const std::size_t value_dim = c.value_dim == 0 ? c.head_dim : c.value_dim;
  const MatrixF Q = random_matrix(189, c.heads * c.head_dim, rng, 2);
  for (const Isa isa : available_isas()) {
    ThreadPool pool(2);
    MatrixF O(Q.rows(), c.heads * value_dim);
    attention(Q.view(), segments_of(all), c, O.view(), pool, isa);
    expect_naive(all, Q.view(), c, O, std::string(isa_name(isa)) + " " + what);
  }
}

TEST(Attention, AgreesWithTheDefinition) {
  Rng rng(1);
  struct Shape {
    std::size_t heads, kv_heads, head_dim, window;
    float softcap;
  };
  for (const Shape& shape : std::initializer_list<Shape>{{1, 1, 1, 0, 0},
                                                         {4, 4, 16, 0, 0},
                                                         {8, 2, 13, 0, 0},
                                                         {6, 1, 64, 17, 0},
                                                         {40, 1, 8, 100, 0},
                                                         {3, 3, 80, 1, 0},
                                                         {4, 2, 32, 0, 5}}) {
    expect_definition(
        {.heads = shape.heads,
         .kv_heads = shape.kv_heads,
         .head_dim = shape.head_dim,
         .scale = 1 / std::sqrt(static_cast<float>(shape.head_dim)),
         .window = shape.window,
         .softcap = shape.softcap},
        rng, "heads " + std::to_string(shape.heads));
  }
}

TEST(Attention, ValuesMayBeOfAnotherWidthThanKeys) {
  Rng rng(4);
  for (const auto& [key_dim, value_dim] :
       std::initializer_list<std::pair<std::size_t, std::size_t>>{
           {24, 16}, {5, 19}, {192, 128}, {1, 3}}) {
    expect_definition({.heads = 6,
                       .kv_heads = 3,
                       .head_dim = key_dim,
                       .value_dim = value_dim,
                       .scale = 1 / std::sqrt(static_cast<float>(key_dim))},
                      rng, "value_dim " + std::to_string(value_dim));
  }
}

TEST(Attention, ChunksHideWhatCameBeforeThem) {
  Rng rng(5);
  for (const std::size_t chunk :
       std::initializer_list<std::size_t>{1, 16, 64, 70, 1000}) {
    for (const std::size_t window : std::initializer_list<std::size_t>{0, 9}) {
      expect_definition({.heads = 4,
                         .kv_heads = 2,
                         .head_dim = 8,
                         .scale = 0.35f,
                         .window = window,
                         .chunk = chunk},
                        rng, "chunk " + std::to_string(chunk));
    }
  }
}

TEST(Attention, SinksTakeTheirPartOfTheSoftmax) {
  Rng rng(6);
  // Far below all scores, among them, and far above.
  const std::vector<float> sinks{-100, -1, 0, 0.5f, 2, 40};
  for (const std::size_t window :
       std::initializer_list<std::size_t>{0, 1, 30}) {
    expect_definition({.heads = 6,
                       .kv_heads = 2,
                       .head_dim = 12,
                       .scale = 0.3f,
                       .window = window,
                       .sinks = sinks},
                      rng, "sinks, window " + std::to_string(window));
  }
}

TEST(Attention, SlopesPushKeysAwayWithTheirDistance) {
  Rng rng(7);
  const std::vector<float> slopes{0.5f, 0.25f, 0.0625f, 0.00390625f};
  expect_definition({.heads = 4,
                     .kv_heads = 4,
                     .head_dim = 9,
                     .scale = 0.33f,
                     .slopes = slopes},
                    rng, "slopes");
  expect_definition({.heads = 4,
                     .kv_heads = 1,
                     .head_dim = 9,
                     .scale = 0.33f,
                     .softcap = 3,
                     .slopes = slopes},
                    rng, "slopes beside a soft cap");
}

TEST(Attention, OneKeyGivesItsValue) {
  const AttentionConfig c{.heads = 1, .kv_heads = 1, .head_dim = 2};
  const MatrixF q({3, -4}, 1, 2), k({1, 2}, 1, 2), v({0.25f, -8}, 1, 2);
  const AttentionSegment s{
      .queries = 1, .keys = kv_view(k.view()), .values = kv_view(v.view())};
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF O(1, 2);
    attention(q.view(), {&s, 1}, c, O.view(), pool, isa);
    EXPECT_EQ(O(0, 0), 0.25f);
    EXPECT_EQ(O(0, 1), -8.0f);
  }
}

TEST(Attention, ScoresOfAnySizeStayFinite) {
  // Scores up to +-1e6: all the weight falls on the largest.
  const AttentionConfig c{.heads = 1, .kv_heads = 1, .head_dim = 1};
  MatrixF q(1, 1), k(300, 1), v(300, 1);
  q(0, 0) = 1000;
  for (std::size_t j = 0; j < 300; ++j) {
    k(j, 0) = static_cast<float>((j * 7) % 300) * 6 - 900;
    v(j, 0) = static_cast<float>(j);
  }
  const AttentionSegment s{.queries = 1,
                           .past = 299,
                           .keys = kv_view(k.view()),
                           .values = kv_view(v.view())};
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF O(1, 1);
    attention(q.view(), {&s, 1}, c, O.view(), pool, isa);
    EXPECT_EQ(O(0, 0), 257.0f) << isa_name(isa);  // 257 * 7 % 300 = 299
  }
}

TEST(Attention, DecodingOneByOneGivesTheBitsOfThePrompt) {
  Rng rng(2);
  for (const std::size_t window : std::initializer_list<std::size_t>{0, 50}) {
    const AttentionConfig c{.heads = 6,
                            .kv_heads = 2,
                            .head_dim = 24,
                            .scale = 0.2f,
                            .window = window};
    const Sequence s = random_sequence(c, 0, 230, rng);
    const MatrixF Q = random_matrix(230, c.heads * c.head_dim, rng);
    for (const Isa isa : available_isas()) {
      MatrixF whole(Q.rows(), Q.cols()), single(Q.rows(), Q.cols());
      ThreadPool one(1), three(3);
      attention(Q.view(), segments_of({s}), c, whole.view(), three, isa);
      for (std::size_t t = 0; t < 230; ++t) {
        const AttentionSegment step{.first_query = t,
                                    .queries = 1,
                                    .past = t,
                                    .keys = kv_view(s.keys.view()),
                                    .values = kv_view(s.values.view())};
        attention(Q.view(), {&step, 1}, c, single.view(), one, isa);
      }
      EXPECT_TRUE(std::equal(whole.data().begin(), whole.data().end(),
                             single.data().begin()))
          << isa_name(isa) << ", window " << window;
    }
  }
}

TEST(Attention, LeavesRowsOutsideTheSegmentsAlone) {
  Rng rng(3);
  const AttentionConfig c{.heads = 2, .kv_heads = 1, .head_dim = 4};
  const std::vector<Sequence> sequences{random_sequence(c, 0, 3, rng)};
  AttentionSegment segment = segments_of(sequences)[0];
  segment.first_query = 2;
  const MatrixF Q = random_matrix(6, 8, rng);
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF O(6, 8);
    for (float& o : O.data()) o = 7;
    attention(Q.view(), {&segment, 1}, c, O.view(), pool, isa);
    for (const std::size_t row : std::initializer_list<std::size_t>{0, 1, 5}) {
      for (const float o : O.row(row)) EXPECT_EQ(o, 7.0f);
    }
    EXPECT_NE(O(2, 0), 7.0f);
  }
}

}  // namespace
}  // namespace llmpress
