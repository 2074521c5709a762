#include "compress/model/training/scaled_linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/activation_grid.h"
#include "compress/core/error.h"
#include "tests/compress/kernels/input_roundings.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using llmpress::testing::input_roundings;
using llmpress::testing::random_fp8;
using llmpress::testing::random_grouped;
using llmpress::testing::random_int8;
using llmpress::testing::random_matrix;
using llmpress::testing::random_micro;
using llmpress::testing::random_table4;
using llmpress::testing::uneven_matrix;
using llmpress::testing::Zeros;

struct Case {
  const char* name;
  PackedWeight weight;
};

std::vector<Case> cases() {
  Rng rng(7);
  const DType f32 = DType::kF32;
  return {
      {"int4", random_grouped(5, 24, 4, 8, Zeros::kInteger, false, f32, rng)},
      {"int3 short group",
       random_grouped(5, 21, 3, 8, Zeros::kSymmetric, false, f32, rng)},
      {"int4 permuted",
       random_grouped(5, 24, 4, 8, Zeros::kInteger, true, f32, rng)},
      {"int4 real zeros",
       random_grouped(5, 24, 4, 8, Zeros::kReal, false, f32, rng)},
      {"int8 rows", random_int8(5, 24, true, true, 3, rng)},
      {"int8 whole", random_int8(5, 24, false, false, 0, rng)},
      {"fp8 blocks", random_fp8(5, 24, DType::kF8E4M3, 2, 16, rng)},
      {"nf4", random_table4(5, 24, Table4Kind::kNf4, 8, false, rng)},
  };
}

std::vector<Parameter> parameters_of(ScaledLinear& linear) {
  std::vector<Parameter> all;
  linear.list_parameters("l", all);
  return all;
}

// sum of Y o dY.
double loss(const ScaledLinear& linear, const MatrixF& X, const MatrixF& dY) {
  ThreadPool pool(1);
  MatrixF Y(X.rows(), linear.out());
  linear.run(X.view(), Y.view(), pool);
  double sum = 0;
  for (std::size_t k = 0; k < Y.size(); ++k) {
    sum += static_cast<double>(Y.data()[k]) * dY.data()[k];
  }
  return sum;
}

TEST(ScaledLinear, FollowsDifferencesOfEveryScaleZeroAndBias) {
  for (const Case& c : cases()) {
    Rng rng(3);
    ThreadPool pool(2);
    ScaledLinear linear({.weight = c.weight, .bias = {1, -1, 0.5f, 2, 0}}, {});
    const MatrixF X = random_matrix(6, linear.in(), rng);
    const MatrixF dY = random_matrix(6, linear.out(), rng);
    MatrixF dX(6, linear.in());
    linear.run_backward(X.view(), dY.view(), dX.view(), pool);
    std::size_t checked = 0;
    for (const Parameter& p : parameters_of(linear)) {
      // Scales are 0.01 and less, zero points and biases about 1.
      const float step = p.rate != 1 ? 1e-3f : 0.25f;
      for (std::size_t k = 0; k < p.value.size(); ++k) {
        const float value = p.value[k];
        const auto at = [&](float v) {
          p.value[k] = v;
          linear.values_changed(pool);
          return loss(linear, X, dY);
        };
        const double difference =
            (at(value + step) - at(value - step)) / (2.0 * step);
        at(value);
        EXPECT_NEAR(p.gradient[k], difference,
                    2e-3 * (1 + std::abs(difference)))
            << c.name << ' ' << p.name << ' ' << k;
        ++checked;
      }
    }
    EXPECT_GE(checked, scale_layout(c.weight).size() + 5) << c.name;
  }
}

TEST(ScaledLinear, PassesTheGradientToItsInput) {
  Rng rng(3);
  ThreadPool pool(2);
  const Case c = cases()[2];
  ScaledLinear linear({.weight = c.weight}, {});
  const MatrixF X = random_matrix(3, 24, rng), dY = random_matrix(3, 5, rng);
  const MatrixF W = dequantize(c.weight);
  MatrixF dX(3, 24);
  linear.run_backward(X.view(), dY.view(), dX.view(), pool);
  for (std::size_t t = 0; t < 3; ++t) {
    for (std::size_t i = 0; i < 24; ++i) {
      double sum = 0;
      for (std::size_t o = 0; o < 5; ++o) {
        sum += static_cast<double>(dY(t, o)) * W(o, i);
      }
      EXPECT_NEAR(dX(t, i), sum, 1e-5);
    }
  }
}

TEST(ScaledLinear, KeepsCodesAndStoresScalesInTheirType) {
  Rng rng(5);
  ThreadPool pool(1);
  const GroupedIntWeight weight =
      random_grouped(4, 16, 2, 8, Zeros::kInteger, false, DType::kF16, rng);
  ScaledLinear linear({.weight = weight}, {});
  const auto parameters = parameters_of(linear);
  ASSERT_EQ(parameters.size(), 1u);
  EXPECT_EQ(parameters[0].name, "l.weight_scale");
  EXPECT_FALSE(parameters[0].decays);
  parameters[0].value[0] = 0.012345678f;  // f16: 0.01234436
  parameters[0].value[1] = 1e-12f;
  parameters[0].value[2] = -1e30f;
  linear.values_changed(pool);
  const auto packed = linear.packed();
  const auto& learned = std::get<GroupedIntWeight>(packed->weight);
  EXPECT_EQ(learned.codes, weight.codes);
  EXPECT_EQ(learned.zeros, weight.zeros);
  EXPECT_EQ(learned.scales[0], 0.01234436035f);
  EXPECT_EQ(learned.scales[1], 0x1p-24f);
  EXPECT_EQ(learned.scales[2], -65504.0f);
  EXPECT_NO_THROW(check(packed->weight, "l"));
}

TEST(ScaledLinear, RoundsItsInputAsTheKernelsDo) {
  for (const ActivationQuant& input : input_roundings()) {
    Rng rng(9);
    ThreadPool pool(2);
    const LinearWeights weights{
        .weight = random_grouped(7, 32, 4, 8, Zeros::kInteger, false,
                                 DType::kF32, rng),
        .bias = {1, 2, 3, 4, 5, 6, 7},
        .input = input};
    const MatrixF X = uneven_matrix(5, 32, rng);
    MatrixF wanted(5, 7), found(5, 7);
    make_linear_kernel(weights, best_isa())->run(X.view(), wanted.view(), pool);
    ScaledLinear(weights, {}).run(X.view(), found.view(), pool);
    for (std::size_t k = 0; k < found.size(); ++k) {
      EXPECT_NEAR(found.data()[k], wanted.data()[k],
                  2e-6f * (100 + std::abs(wanted.data()[k])))
          << describe_rounding(input);
    }
  }
}

// The gradient is that of the inputs as they are rounded: by groups, small ones
// beside large ones keep theirs.
TEST(ScaledLinear, FollowsDifferencesThroughRoundedInputs) {
  for (const ActivationQuant& input : input_roundings()) {
    Rng rng(3);
    ThreadPool pool(2);
    ScaledLinear linear({.weight = random_grouped(5, 24, 4, 8, Zeros::kReal,
                                                  false, DType::kF32, rng),
                         .input = input},
                        {});
    const MatrixF X = uneven_matrix(6, 24, rng);
    const MatrixF dY = random_matrix(6, linear.out(), rng);
    MatrixF dX(6, linear.in());
    linear.run_backward(X.view(), dY.view(), dX.view(), pool);
    for (const Parameter& p : parameters_of(linear)) {
      const float step = p.rate != 1 ? 1e-3f : 0.25f;
      for (std::size_t k = 0; k < p.value.size(); ++k) {
        const float value = p.value[k];
        const auto at = [&](float v) {
          p.value[k] = v;
          linear.values_changed(pool);
          return loss(linear, X, dY);
        };
        const double difference =
            (at(value + step) - at(value - step)) / (2.0 * step);
        at(value);
        EXPECT_NEAR(p.gradient[k], difference,
                    2e-3 * (1 + std::abs(difference)))
            << describe_rounding(input) << ' ' << p.name << ' ' << k;
      }
    }
  }
}

TEST(ScaledLinear, LearnsOfSmallInputsBesideLargeOnesInGroupsOnly) {
  const auto gradient = [](ActivationQuant input) {
    Rng rng(3);
    ThreadPool pool(1);
    ScaledLinear linear(
        {.weight = random_grouped(1, 16, 4, 8, Zeros::kSymmetric, false,
                                  DType::kF32, rng),
         .input = input},
        {});
    MatrixF X(1, 16), dY(1, 1), dX;
    for (std::size_t i = 0; i < 16; ++i) {
      X(0, i) = (i < 8 ? 1e-3f : 1.0f) * static_cast<float>(1 + i % 3);
    }
    dY(0, 0) = 1;
    linear.run_backward(X.view(), dY.view(), dX.view(), pool);
    return std::abs(parameters_of(linear)[0].gradient[0]);
  };
  ActivationQuant input{.kind = ActivationQuant::Kind::kInt, .bits = 8};
  EXPECT_EQ(gradient(input), 0);
  input.range = ActivationQuant::Range::kGroup;
  input.group_size = 8;
  EXPECT_NEAR(gradient(input), gradient({}), 1e-2 * gradient({}));
  EXPECT_GT(gradient({}), 1e-3);
}

TEST(ScaledLinear, LeavesAloneWhatDoesNotLearn) {
  Rng rng(9);
  ScaledLinear linear({.weight = random_grouped(4, 16, 4, 8, Zeros::kReal,
                                                false, DType::kF32, rng),
                       .bias = {1, 2, 3, 4}},
                      {.scales = false, .zeros = true, .bias = false});
  const auto parameters = parameters_of(linear);
  ASSERT_EQ(parameters.size(), 1u);
  EXPECT_EQ(parameters[0].name, "l.weight_zero_point");
}

TEST(ScaledLinear, RefusesScalesThatAreNoFloats) {
  Rng rng(9);
  const PackedWeight fixed[] = {
      random_micro(4, 32, MicroFp4Kind::kMxfp4, rng),
      random_micro(4, 32, MicroFp4Kind::kNvfp4, rng),
      random_table4(4, 32, Table4Kind::kNf4, 8, true, rng)};
  for (const PackedWeight& weight : fixed) {
    EXPECT_FALSE(fixed_scales(weight).empty());
    EXPECT_THROW(ScaledLinear({.weight = weight}, {}), Error);
  }
}

}  // namespace
}  // namespace llmpress
