#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/kernels/panel_weight.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using testing::random_matrix;
using testing::Zeros;

struct NamedWeight {
  std::string name;
  PackedWeight weight;
  bool exact = true;  // its values are whole numbers of one unit
};

std::vector<NamedWeight> weights(std::size_t out, std::size_t in, Rng& rng) {
  std::vector<NamedWeight> all;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const std::size_t group :
         std::initializer_list<std::size_t>{7, 32, 128, 100000}) {
      for (const Zeros zeros :
           {Zeros::kSymmetric, Zeros::kInteger, Zeros::kReal}) {
        const bool permuted = rng.below(3) == 0;
        all.push_back({"int" + std::to_string(bits) + " g" +
                           std::to_string(group) + " zeros " +
                           std::to_string(static_cast<int>(zeros)),
                       testing::random_grouped(out, in, bits, group, zeros,
                                               permuted, DType::kF16, rng)});
      }
    }
  }
  all.push_back({"int8", testing::random_int8(out, in, true, true, 0, rng)});
  all.push_back(
      {"int8 outliers", testing::random_int8(out, in, true, false, 3, rng)});
  all.push_back(
      {"mxfp4", testing::random_micro(out, in, MicroFp4Kind::kMxfp4, rng)});
  all.push_back(
      {"nvfp4", testing::random_micro(out, in, MicroFp4Kind::kNvfp4, rng)});
  all.push_back(
      {"nf4", testing::random_table4(out, in, Table4Kind::kNf4, 32, true, rng),
       false});
  all.push_back(
      {"fp4", testing::random_table4(out, in, Table4Kind::kFp4, 32, false, rng),
       false});
  return all;
}

MatrixF run(const LinearKernel& kernel, ConstMatrixView X,
            std::size_t threads = 1) {
  ThreadPool pool(threads);
  MatrixF Y(X.rows(), kernel.out());
  kernel.run(X, Y.view(), pool);
  return Y;
}

// x rounded as rounded_kernels.h says, over the blocks of `panels`.
MatrixF rounded_inputs(ConstMatrixView X, const PanelWeight& panels) {
  MatrixF R(X);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (const PanelBlock& block : panels.blocks) {
      std::vector<std::size_t> columns;
      for (std::size_t k = block.begin; k < block.end; ++k) {
        const std::size_t i = panels.gather.empty() ? k : panels.gather[k];
        if (i != kPadding) columns.push_back(i);
      }
      float most = 0;
      for (const std::size_t i : columns) {
        most = std::max(most, std::abs(X(t, i)));
      }
      const float scale = most / 127;
      for (const std::size_t i : columns) {
        R(t, i) = most > 0 ? scale * std::nearbyint(X(t, i) * (1 / scale)) : 0;
      }
    }
  }
  return R;
}

TEST(RoundedProduct, IsTheProductOfTheRoundedInputs) {
  Rng rng(1);
  for (const auto& [out, in] :
       {std::pair<std::size_t, std::size_t>{70, 288}, {17, 64}, {130, 300}}) {
    for (const NamedWeight& w : weights(out, in, rng)) {
      const auto panels = make_panels(w.weight);
      if (!panels) continue;  // nf4 whose blocks straddle rows
      const MatrixF X = random_matrix(15, in, rng);
      MatrixF R = rounded_inputs(X.view(), *panels);
      if (const auto* const int8 = std::get_if<Int8Weight>(&w.weight)) {
        for (const std::uint32_t c : int8->outlier_columns) {
          for (std::size_t t = 0; t < X.rows(); ++t) R(t, c) = X(t, c);
        }
      }
      const MatrixF wanted = run(
          *make_linear_kernel({.weight = w.weight}, Isa::kScalar), R.view());
      float size = 0;
      for (const float y : wanted.data()) size = std::max(size, std::abs(y));
      // A table in 14 bits is off by half of 2 / 16383 of its range a weight.
      const float tolerance = size * (w.exact ? 4e-6f : 4e-4f);
      for (const Isa isa : available_isas()) {
        if (isa == Isa::kScalar) continue;
        const auto kernel = make_linear_kernel({.weight = w.weight}, isa,
                                               InputPrecision::kInt8);
        ASSERT_TRUE(kernel->integer_activations()) << w.name;
        for (const std::size_t tokens :
             std::initializer_list<std::size_t>{1, 2, 3, 4, 5, 15}) {
          const auto some = X.view().rows_slice(0, tokens);
          const MatrixF found = run(*kernel, some);
          for (std::size_t e = 0; e < found.size(); ++e) {
            ASSERT_NEAR(found.data()[e], wanted.data()[e], tolerance)
                << w.name << " on " << kernel->name() << ", " << tokens
                << " tokens, element " << e;
          }
        }
      }
    }
  }
}

TEST(RoundedProduct, BitsDependOnNeitherThreadsNorOtherRows) {
  Rng rng(2);
  for (const NamedWeight& w : weights(210, 320, rng)) {
    const MatrixF X = random_matrix(29, 320, rng);
    for (const Isa isa : available_isas()) {
      if (isa == Isa::kScalar) continue;
      const auto kernel =
          make_linear_kernel({.weight = w.weight}, isa, InputPrecision::kInt8);
      const MatrixF all = run(*kernel, X.view());
      const MatrixF threaded = run(*kernel, X.view(), 3);
      ASSERT_TRUE(std::ranges::equal(all.data(), threaded.data())) << w.name;
      for (const std::size_t count :
           std::initializer_list<std::size_t>{1, 2, 3, 4, 7}) {
        const MatrixF some = run(*kernel, X.view().rows_slice(5, count));
        ASSERT_TRUE(std::ranges::equal(
            some.data(), all.data().subspan(5 * all.cols(), some.size())))
            << w.name << ", " << count << " tokens on " << isa_name(isa);
      }
    }
  }
}

TEST(RoundedProduct, LeavesOtherWeightsAndDeclaredRoundingAlone) {
  Rng rng(3);
  const MatrixF W = random_matrix(16, 32, rng);
  const auto int4 = testing::random_grouped(16, 32, 4, 32, Zeros::kSymmetric,
                                            false, DType::kF16, rng);
  for (const Isa isa : available_isas()) {
    const auto dense =
        make_linear_kernel({.weight = make_dense(W.view(), DType::kBF16)}, isa,
                           InputPrecision::kInt8);
    EXPECT_FALSE(dense->integer_activations());
    const LinearWeights declared{
        .weight = int4, .input = {.kind = ActivationQuant::Kind::kInt}};
    const auto as_stored = make_linear_kernel(declared, isa);
    const auto asked = make_linear_kernel(declared, isa, InputPrecision::kInt8);
    const MatrixF X = random_matrix(3, 32, rng);
    EXPECT_TRUE(std::ranges::equal(run(*as_stored, X.view()).data(),
                                   run(*asked, X.view()).data()));
  }
}

TEST(RoundedProduct, RefusesNumbersThatAreNotFinite) {
  Rng rng(4);
  const auto int4 = testing::random_grouped(16, 64, 4, 32, Zeros::kSymmetric,
                                            false, DType::kF16, rng);
  for (const float bad :
       {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    MatrixF X = random_matrix(7, 64, rng);
    X(4, 50) = bad;
    for (const Isa isa : available_isas()) {
      if (isa == Isa::kScalar) continue;
      const auto kernel =
          make_linear_kernel({.weight = int4}, isa, InputPrecision::kInt8);
      EXPECT_THROW(run(*kernel, X.view()), Error);
      EXPECT_THROW(run(*kernel, X.view().rows_slice(4, 1)), Error);
    }
  }
}

TEST(RoundedProduct, ZerosAndTinyInputsStayFinite) {
  Rng rng(5);
  const auto int4 = testing::random_grouped(16, 64, 4, 32, Zeros::kInteger,
                                            false, DType::kF16, rng);
  for (const float value : {0.0f, 1e-42f, 1e30f}) {
    const MatrixF X(std::vector<float>(64, value), 1, 64);
    for (const Isa isa : available_isas()) {
      const auto kernel =
          make_linear_kernel({.weight = int4}, isa, InputPrecision::kInt8);
      const MatrixF Y = run(*kernel, X.view());
      for (const float y : Y.data()) {
        EXPECT_TRUE(std::isfinite(y)) << value;
      }
    }
  }
}

}  // namespace
}  // namespace llmpress
