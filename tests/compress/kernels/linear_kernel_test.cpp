#include "compress/kernels/linear_kernel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/hadamard.h"
#include "tests/compress/kernels/all_weights.h"

namespace llmpress {
namespace {

using testing::all_weights;
using testing::NamedWeight;
using testing::random_matrix;
using testing::Shape;
using testing::Zeros;
using Kind = ActivationQuant::Kind;
using Range = ActivationQuant::Range;

constexpr Shape kShapes[] = {{1, 1},   {1, 17},    {17, 1},
                             {16, 8},  {53, 71},   {64, 256},
                             {67, 96}, {130, 300}, {200, 128}};

std::vector<Isa> fast_isas() {
  std::vector<Isa> isas = available_isas();
  isas.erase(isas.begin());
  return isas;
}

MatrixF run(const LinearKernel& kernel, ConstMatrixView X, ThreadPool& pool) {
  MatrixF Y(X.rows(), kernel.out());
  for (float& y : Y.data()) y = std::nanf("");  // every element is written
  kernel.run(X, Y.view(), pool);
  return Y;
}

MatrixF run(const LinearWeights& linear, Isa isa, ConstMatrixView X,
            std::size_t threads = 2) {
  ThreadPool pool(threads);
  return run(*make_linear_kernel(linear, isa), X, pool);
}

// sum_i |x_i| m_oi where m is the largest number that stands for W[o, i] on the
// way: |W|, or for affine codes s * 2^bits.
MatrixF magnitudes(const PackedWeight& weight) {
  MatrixF m = dequantize(weight);
  for (float& x : m.data()) x = std::abs(x);
  const auto affine = [&](std::size_t columns, auto scale_of) {
    for (std::size_t o = 0; o < m.rows(); ++o) {
      for (std::size_t i = 0; i < columns; ++i) {
        m(o, i) += std::abs(scale_of(o, i)) * 256.0f;
      }
    }
  };
  if (const auto* g = std::get_if<GroupedIntWeight>(&weight)) {
    affine(g->in, [&](std::size_t o, std::size_t i) {
      const std::size_t group =
          g->g_idx.empty() ? i / g->group_size : g->g_idx[i];
      return g->scales[o * g->groups() + group] *
             static_cast<float>(1 << g->bits) / 256.0f;
    });
  } else if (const auto* b = std::get_if<GgmlWeight>(&weight)) {
    // Minima are taken off as scale * zero: both sides of the difference.
    const GgmlTypeFacts& f = facts(b->type);
    const GgmlLayout& l = layout(b->type);
    affine(b->in, [&](std::size_t o, std::size_t i) {
      const GgmlBlock block = unpack_ggml_block(
          b->type, b->row(o).subspan(i / f.elements * f.bytes, f.bytes));
      const std::size_t j = i % f.elements / l.step;
      return (std::abs(minimum_of(l, block, j)) +
              std::abs(scale_of(l, block, j)) * static_cast<float>(l.levels)) /
             256.0f;
    });
  } else if (const auto* q = std::get_if<Int8Weight>(&weight)) {
    affine(q->in, [&](std::size_t o, std::size_t) {
      return q->scales[q->scales.size() == 1 ? 0 : o];
    });
  } else if (const auto* f = std::get_if<MicroFp4Weight>(&weight)) {
    // Multiplied as whole numbers 0 to 24 of half a scale, less 6 scales.
    affine(f->in, [&](std::size_t o, std::size_t i) {
      const std::size_t groups = ceil_div(f->in, f->group());
      const std::uint8_t code = f->scales[o * groups + i / f->group()];
      const float scale = f->kind == MicroFp4Kind::kMxfp4
                              ? e8m0_to_float(code)
                              : e4m3_to_float(code) / f->global_scale;
      return 12.0f * scale / 256.0f;
    });
  }
  return m;
}

// Sums of at most 256 products, of blocks, and a handful of roundings of scales
// and zeros: each of them errs by half a unit in the last place of its size.
void expect_close(const MatrixF& found, const MatrixF& wanted,
                  const MatrixF& magnitude, ConstMatrixView X,
                  const std::string& what) {
  const double roundings = 256 + 16 + static_cast<double>(X.cols()) / 8;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (std::size_t o = 0; o < wanted.cols(); ++o) {
      double size = 0;
      for (std::size_t i = 0; i < X.cols(); ++i) {
        size += std::abs(double{X(t, i)}) * double{magnitude(o, i)};
      }
      ASSERT_NEAR(found(t, o), wanted(t, o), roundings * 0x1p-24 * size)
          << what << ", token " << t << ", output " << o;
    }
  }
}

TEST(LinearKernel, MultipliesATinyMatrixAsByHand) {
  const MatrixF W({1, 2, 3, 4, 5, 6}, 2, 3);
  const MatrixF X({1, 10, 100, -1, 0, 2}, 2, 3);
  const LinearWeights linear{.weight = make_dense(W.view(), DType::kF32),
                             .bias = {0.5f, -1}};
  for (const Isa isa : available_isas()) {
    const MatrixF Y = run(linear, isa, X.view());
    EXPECT_EQ(std::vector<float>(Y.data().begin(), Y.data().end()),
              (std::vector<float>{321.5f, 653, 5.5f, 7}))
        << isa_name(isa);
  }
}

TEST(LinearKernel, FastKernelsAgreeWithThePlainOneForEveryPackedType) {
  Rng rng(1);
  ThreadPool pool(2);
  for (const Shape s : kShapes) {
    for (const NamedWeight& w : all_weights(s, rng)) {
      const auto tokens = static_cast<std::size_t>(1 + rng.below(70));
      const MatrixF X = random_matrix(tokens, s.in, rng);
      const LinearWeights linear{.weight = w.weight};
      const MatrixF wanted = run(linear, Isa::kScalar, X.view());
      const MatrixF magnitude = magnitudes(w.weight);
      for (const Isa isa : fast_isas()) {
        const auto kernel = make_linear_kernel(linear, isa);
        const std::string what = w.name + " on " + std::string(kernel->name()) +
                                 ", [" + std::to_string(s.out) + ", " +
                                 std::to_string(s.in) + "]";
        const MatrixF many = run(*kernel, X.view(), pool);
        expect_close(many, wanted, magnitude, X.view(), what + " many");
        // Few tokens take another path.
        const std::size_t count =
            std::min<std::size_t>(1 + rng.below(4), tokens);
        const auto first = X.view().rows_slice(0, count);
        const MatrixF few = run(*kernel, first, pool);
        expect_close(few, wanted, magnitude, first, what + " few");
      }
    }
  }
}

TEST(LinearKernel, BitsDependOnNeitherThreadsNorOtherRows) {
  Rng rng(2);
  const Shape s{210, 320};
  for (const NamedWeight& w : all_weights(s, rng)) {
    if (std::holds_alternative<SparseWeight>(w.weight)) continue;
    const MatrixF X = random_matrix(37, s.in, rng);
    const LinearWeights linear{.weight = w.weight};
    for (const Isa isa : fast_isas()) {
      const MatrixF one = run(linear, isa, X.view(), 1);
      for (const std::size_t threads :
           std::initializer_list<std::size_t>{2, 3}) {
        const MatrixF many = run(linear, isa, X.view(), threads);
        ASSERT_TRUE(std::equal(one.data().begin(), one.data().end(),
                               many.data().begin()))
            << w.name << " on " << threads << " threads";
      }
      for (const std::size_t count :
           std::initializer_list<std::size_t>{1, 2, 3, 4, 13}) {
        const MatrixF some = run(linear, isa, X.view().rows_slice(5, count));
        for (std::size_t t = 0; t < count; ++t) {
          ASSERT_TRUE(std::equal(some.row(t).begin(), some.row(t).end(),
                                 one.row(5 + t).begin()))
              << w.name << " among " << count << " rows";
        }
      }
    }
  }
}

// --- rounded activations ----------------------------------------------------

std::vector<ActivationQuant> int_activations() {
  std::vector<ActivationQuant> all;
  for (const int bits : {4, 8}) {
    for (const Range range : {Range::kToken, Range::kTensor, Range::kStatic}) {
      for (const bool symmetric : {true, false}) {
        all.push_back({.kind = Kind::kInt,
                       .bits = bits,
                       .range = range,
                       .symmetric = symmetric,
                       .static_scale = 3.0f / static_cast<float>(1 << bits),
                       .static_zero = bits == 4 ? -3 : 17});
      }
    }
  }
  ActivationQuant outliers = all[6];
  outliers.outlier_threshold = 2.5f;
  all.push_back(outliers);
  outliers.symmetric = false;
  all.push_back(outliers);
  return all;
}

TEST(LinearKernel, IntegerProductsAreTheSameBitsEverywhere) {
  Rng rng(3);
  for (const Shape s : kShapes) {
    for (const NamedWeight& w : all_weights(s, rng)) {
      if (!std::holds_alternative<Int8Weight>(w.weight) &&
          !std::holds_alternative<GroupedIntWeight>(w.weight)) {
        continue;
      }
      const auto* const grouped = std::get_if<GroupedIntWeight>(&w.weight);
      // These have no integer product: real zeros, and 2 bits.
      if (grouped != nullptr &&
          (!grouped->float_zeros.empty() || grouped->bits == 2)) {
        continue;
      }
      const MatrixF X = random_matrix(1 + rng.below(40), s.in, rng);
      const std::vector<ActivationQuant> quants = int_activations();
      for (std::size_t i = rng.below(4); i < quants.size(); i += 4) {
        const ActivationQuant& quant = quants[i];
        const LinearWeights linear{.weight = w.weight, .input = quant};
        const MatrixF wanted = run(linear, Isa::kScalar, X.view());
        for (const Isa isa : fast_isas()) {
          const MatrixF found = run(linear, isa, X.view());
          for (std::size_t e = 0; e < wanted.size(); ++e) {
            ASSERT_EQ(found.data()[e], wanted.data()[e])
                << w.name << " on " << isa_name(isa) << ", [" << s.out << ", "
                << s.in << "], a" << quant.bits << " range "
                << static_cast<int>(quant.range)
                << (quant.symmetric ? " sym" : " zero") << ", element " << e;
          }
        }
      }
    }
  }
}

TEST(LinearKernel, IntegerSumsOfManyInputsDoNotOverflow) {
  // 70001 * 127 * 255 > 2^31: the sum runs in stretches.
  constexpr std::size_t kIn = 70001;
  Int8Weight w{.out = 1, .in = kIn};
  w.codes.assign(kIn, 127);
  w.scales = {1};
  w.zeros = {-128};
  const MatrixF X(std::vector<float>(5 * kIn, 1.0f), 5, kIn);
  const LinearWeights linear{.weight = w,
                             .input = {.kind = Kind::kInt, .symmetric = true}};
  for (const Isa isa : available_isas()) {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{1, 5}) {
      const MatrixF Y = run(linear, isa, X.view().rows_slice(0, tokens));
      // 1 rounds to 127 of 127.5.
      EXPECT_NEAR(Y(tokens - 1, 0), 255.0 * kIn * 127 / 127.5, 8)
          << isa_name(isa);
    }
  }
}

TEST(LinearKernel, IntegerProductIsTheProductOfTheRoundedInputs) {
  Rng rng(4);
  const Shape s{40, 96};
  for (const auto& quant : int_activations()) {
    const std::vector<PackedWeight> weights{
        testing::random_grouped(s.out, s.in, 4, 32, Zeros::kInteger, true,
                                DType::kF16, rng),
        testing::random_int8(s.out, s.in, true, true, 4, rng)};
    for (const PackedWeight& w : weights) {
      const MatrixF X = random_matrix(9, s.in, rng);
      MatrixF rounded = X;
      std::span<const std::uint32_t> exact;
      if (const auto* q = std::get_if<Int8Weight>(&w)) {
        exact = q->outlier_columns;
      }
      quantize_activations_in_place(quant, rounded.view(), exact);
      const MatrixF wanted = run({.weight = w}, Isa::kScalar, rounded.view());
      for (const Isa isa : available_isas()) {
        const MatrixF found = run({.weight = w, .input = quant}, isa, X.view());
        expect_close(found, wanted, magnitudes(w), rounded.view(),
                     std::string(isa_name(isa)));
      }
    }
  }
}

TEST(LinearKernel, Fp8InputsAreRoundedThroughE4M3) {
  Rng rng(5);
  const Shape s{33, 64};
  const auto w = testing::random_fp8(s.out, s.in, DType::kF8E4M3, 1, 64, rng);
  const MatrixF X = random_matrix(6, s.in, rng);
  const ActivationQuant quant{.kind = Kind::kFp8};
  MatrixF rounded = X;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    float max = 0;
    for (const float x : X.row(t)) max = std::max(max, std::abs(x));
    for (float& x : rounded.row(t)) {
      x = e4m3_to_float(e4m3_from_float(x / (max / 448))) * (max / 448);
    }
  }
  const MatrixF wanted = run({.weight = w}, Isa::kScalar, rounded.view());
  for (const Isa isa : available_isas()) {
    expect_close(run({.weight = w, .input = quant}, isa, X.view()), wanted,
                 magnitudes(w), X.view(), std::string(isa_name(isa)));
  }
}

TEST(LinearKernel, InputsInGroupsAreTheProductOfTheRoundedInputs) {
  Rng rng(8);
  const Shape s{33, 200};  // groups of 64, 64, 64 and 8
  const std::pair<PackedWeight, Kind> cases[] = {
      {testing::random_fp8(s.out, s.in, DType::kF8E4M3, 16, 64, rng),
       Kind::kFp8},
      {testing::random_int8(s.out, s.in, true, true, 4, rng), Kind::kInt},
      {testing::random_grouped(s.out, s.in, 4, 40, Zeros::kInteger, true,
                               DType::kF16, rng),
       Kind::kInt}};
  for (const auto& [w, kind] : cases) {
    const ActivationQuant quant{
        .kind = kind, .range = Range::kGroup, .group_size = 64};
    const MatrixF X = random_matrix(5, s.in, rng);
    MatrixF rounded = X;
    std::span<const std::uint32_t> exact;
    if (const auto* q = std::get_if<Int8Weight>(&w)) exact = q->outlier_columns;
    for (std::size_t i = 0; i < s.in; i += 64) {
      const std::size_t count = std::min<std::size_t>(64, s.in - i);
      MatrixF part(X.rows(), count);
      std::vector<std::uint32_t> kept;
      for (const std::uint32_t c : exact) {
        if (c >= i && c < i + count) {
          kept.push_back(c - static_cast<std::uint32_t>(i));
        }
      }
      for (std::size_t t = 0; t < X.rows(); ++t) {
        std::ranges::copy(X.row(t).subspan(i, count), part.row(t).begin());
      }
      quantize_activations_in_place({.kind = kind}, part.view(), kept);
      for (std::size_t t = 0; t < X.rows(); ++t) {
        std::ranges::copy(part.row(t), rounded.row(t).subspan(i).begin());
      }
    }
    const MatrixF wanted = run({.weight = w}, Isa::kScalar, rounded.view());
    for (const Isa isa : available_isas()) {
      expect_close(run({.weight = w, .input = quant}, isa, X.view()), wanted,
                   magnitudes(w), rounded.view(), std::string(isa_name(isa)));
    }
  }
}

TEST(LinearKernel, RotatesInputsAndAddsTheBiasLast) {
  Rng rng(6);
  const Shape s{20, 48};
  const MatrixF W = random_matrix(s.out, s.in, rng);
  const MatrixF X = random_matrix(7, s.in, rng);
  ThreadPool pool(1);
  MatrixF turned = X;
  hadamard_rows_in_place(turned.view(), 16, pool);
  const LinearWeights plain{.weight = make_dense(W.view(), DType::kF32)};
  LinearWeights rotated = plain;
  rotated.input_hadamard = 16;
  for (std::size_t o = 0; o < s.out; ++o) {
    rotated.bias.push_back(static_cast<float>(o));
  }
  for (const Isa isa : available_isas()) {
    const MatrixF wanted = run(plain, isa, turned.view());
    const MatrixF found = run(rotated, isa, X.view());
    for (std::size_t t = 0; t < X.rows(); ++t) {
      for (std::size_t o = 0; o < s.out; ++o) {
        EXPECT_EQ(found(t, o), wanted(t, o) + static_cast<float>(o));
      }
    }
  }
}

TEST(LinearKernel, RefusesWhatItCannotRun) {
  Rng rng(7);
  const MatrixF W = random_matrix(4, 12, rng);
  const LinearWeights good{.weight = make_dense(W.view(), DType::kF32)};
  const Isa isa = best_isa();
  LinearWeights bad = good;
  bad.bias = {1, 2, 3};
  EXPECT_THROW(make_linear_kernel(bad, isa), Error);
  bad = good;
  bad.input_hadamard = 5;
  EXPECT_THROW(make_linear_kernel(bad, isa), Error);
  bad = good;
  bad.input = {.kind = Kind::kInt, .bits = 3};
  EXPECT_THROW(make_linear_kernel(bad, isa), Error);
  bad.input = {.kind = Kind::kInt, .range = Range::kStatic};
  EXPECT_THROW(make_linear_kernel(bad, isa), Error);
  bad.input.static_scale = 0.1f;
  bad.input.symmetric = false;
  bad.input.static_zero = 200;
  EXPECT_THROW(make_linear_kernel(bad, isa), Error);
}

TEST(LinearKernel, NoTokensGiveNoRows) {
  Rng rng(8);
  const MatrixF W = random_matrix(4, 12, rng);
  for (const Isa isa : available_isas()) {
    EXPECT_EQ(run({.weight = make_dense(W.view(), DType::kF32)}, isa,
                  MatrixF(0, 12).view())
                  .size(),
              0u);
  }
}

// --- quantize_activations_in_place ------------------------------------------

std::vector<float> rounded(const ActivationQuant& quant, std::vector<float> x,
                           std::size_t rows = 1,
                           std::span<const std::uint32_t> exact = {}) {
  const std::size_t cols = x.size() / rows;
  quantize_activations_in_place(quant, {x, rows, cols}, exact);
  return x;
}

using Floats = std::vector<float>;

TEST(ActivationRounding, SymmetricGridsReachHalfAStepBeyondTheirLastCode) {
  // 4 bits: s = 7.5 / 7.5 = 1; ties to even.
  const ActivationQuant q{.kind = Kind::kInt, .bits = 4};
  EXPECT_EQ(rounded(q, {7.5f, -0.4f, 0.5f, 1.5f, -2.5f, 3.2f}),
            (Floats{7, -0.0f, 0, 2, -2, 3}));
  EXPECT_EQ(rounded(q, {-7.5f, 1}), (Floats{-8, 1}));
}

TEST(ActivationRounding, GridsWithZeroSpanMinToMax) {
  // [-3, 12]: s = 1, z = -8 + 3 = -5.
  const ActivationQuant q{.kind = Kind::kInt, .bits = 4, .symmetric = false};
  EXPECT_EQ(rounded(q, {-3, 12, 0, 4.4f, -1.6f}), (Floats{-3, 12, 0, 4, -2}));
  // All above 0: the grid still contains 0.
  EXPECT_EQ(rounded(q, {15, 7.2f}), (Floats{15, 7}));
}

TEST(ActivationRounding, StaticGridsClamp) {
  const ActivationQuant q{.kind = Kind::kInt,
                          .range = Range::kStatic,
                          .symmetric = false,
                          .static_scale = 0.5f,
                          .static_zero = 28};
  EXPECT_EQ(rounded(q, {1e30f, -1e30f, 3.3f}), (Floats{49.5f, -78, 3.5f}));
}

TEST(ActivationRounding, TensorRangeIsSharedAndTokenRangeIsNot) {
  ActivationQuant q{.kind = Kind::kInt, .bits = 4};
  EXPECT_EQ(rounded(q, {75, 4, 7.5f, 4}, 2), (Floats{70, 0, 7, 4}));
  q.range = Range::kTensor;
  EXPECT_EQ(rounded(q, {75, 4, 7.5f, 4}, 2), (Floats{70, 0, 10, 0}));
}

TEST(ActivationRounding, EachGroupOfATokenHasItsOwnGrid) {
  // Groups of 3 and the 2 that are left: s = 10, 1 and then 1, 2.
  const ActivationQuant q{
      .kind = Kind::kInt, .bits = 4, .range = Range::kGroup, .group_size = 3};
  EXPECT_EQ(rounded(q, {75, 4, -22, 7.5f, 1.2f, 7.5f, 3.4f, -2.6f, 15, 5}, 2),
            (Floats{70, 0, -20, 7, 1, 7, 3, -3, 14, 4}));
  // Groups beyond a token are its token.
  ActivationQuant wide = q, token = q;
  wide.group_size = 1000;
  token.range = Range::kToken;
  const Floats x{75, 4, -22, 7.5f, 1.2f};
  EXPECT_EQ(rounded(wide, x), rounded(token, x));
}

TEST(ActivationRounding, OutliersOfAGroupStayToo) {
  // LLM.int8()'s steps, max / 7 of 4 bits: 1, 2 and 4.
  const ActivationQuant q{.kind = Kind::kInt,
                          .bits = 4,
                          .range = Range::kGroup,
                          .group_size = 2,
                          .outlier_threshold = 50};
  EXPECT_EQ(rounded(q, {7, 1.2f, 60.3f, 14, 2.2f, 28}),
            (Floats{7, 1, 60.3f, 14, 4, 28}));
}

TEST(ActivationRounding, OutlierColumnsStayAndDoNotStretchTheGrid) {
  ActivationQuant q{.kind = Kind::kInt, .bits = 4, .outlier_threshold = 50};
  // Column 1 has an outlier in one of the two tokens.
  EXPECT_EQ(rounded(q, {7, 60.3f, 2.2f, 7, 1.3f, 3.4f}, 2),
            (Floats{7, 60.3f, 2, 7, 1.3f, 3}));
  const std::uint32_t exact[] = {0};
  q.outlier_threshold = 0;
  EXPECT_EQ(rounded(q, {99.3f, 7.5f, 2.2f}, 1, exact), (Floats{99.3f, 7, 2}));
}

TEST(ActivationRounding, RowsOfZerosAndTinyRowsStayFinite) {
  for (const bool symmetric : {true, false}) {
    const ActivationQuant q{.kind = Kind::kInt, .symmetric = symmetric};
    EXPECT_EQ(rounded(q, {0, 0}), (Floats{0, 0}));
    for (const float x : rounded(q, {1e-42f, -1e-42f, 0})) {
      EXPECT_NEAR(x, 0, 2e-38f);
    }
    for (const float x : rounded(q, {3e38f, -3e38f})) {
      EXPECT_NEAR(std::abs(x), 3e38f, 3e38f / 127);
    }
  }
}

TEST(ActivationRounding, RejectsNumbersThatAreNotFinite) {
  for (const Kind kind : {Kind::kInt, Kind::kFp8}) {
    const ActivationQuant q{.kind = kind};
    EXPECT_THROW(rounded(q, {1, std::nanf("")}), Error);
    EXPECT_THROW(rounded(q, {std::numeric_limits<float>::infinity(), 1}),
                 Error);
  }
}

TEST(LinearKernel, TakesBlocksWithAMinimumBesideAScaleOfZero) {
  GgmlWeight w{.out = 1, .in = 256, .type = GgmlType::kQ4_K};
  w.blocks.resize(w.row_bytes());
  GgmlBlock block{.d = 1, .dmin = 0.5f};
  block.min_codes[2] = 3;
  pack_ggml_block(w.type, block, w.blocks);
  MatrixF X(1, 256);
  X(0, 70) = 2;  // of sub-block 2
  for (const Isa isa : available_isas()) {
    EXPECT_EQ(run({.weight = w}, isa, X.view())(0, 0), -3) << isa_name(isa);
  }
}

// A matrix that is run where it lies gives what a dense weight gives that was
// laid out, with what is done around it.
TEST(LinearKernel, RunsAMatrixWhereItLies) {
  ThreadPool pool(2);
  Rng rng(71);
  for (const Isa isa : {Isa::kScalar, best_isa()}) {
    for (const std::size_t tokens : {1u, 5u, 40u}) {
      const MatrixF W = random_matrix(53, 64, rng);
      const MatrixF X = random_matrix(tokens, 64, rng);
      LinearWeights around{.weight = make_dense(W.view(), DType::kF32),
                           .bias = std::vector<float>(53, 0.5f),
                           .input = {.kind = Kind::kFp8},
                           .input_hadamard = 32};
      MatrixF found(tokens, 53), wanted(tokens, 53);
      const auto kernel = make_viewing_kernel(W.view(), around, isa);
      EXPECT_EQ(kernel->out(), 53u);
      EXPECT_EQ(kernel->in(), 64u);
      kernel->run(X.view(), found.view(), pool);
      make_linear_kernel(around, isa)->run(X.view(), wanted.view(), pool);
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_NEAR(found.data()[i], wanted.data()[i], 1e-4) << i;
      }
    }
  }
}

}  // namespace
}  // namespace llmpress
