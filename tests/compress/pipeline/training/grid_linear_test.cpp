#include "compress/pipeline/training/grid_linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "compress/core/activation_grid.h"
#include "compress/kernels/linear_kernel.h"
#include "tests/compress/kernels/input_roundings.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using testing::input_roundings, testing::random_matrix, testing::uneven_matrix;

GridLinear make_linear(const ActivationQuant& input, ThreadPool& pool) {
  Rng rng(4);
  GridLinearConfig config;
  config.quantize.weights = {.bits = 4, .group_size = 8};
  config.quantize.input = input;
  return {random_matrix(7, 32, rng), std::vector<float>(7, 0.5f), config,
          nullptr, pool};
}

TEST(GridLinear, RunsAsItsPackedFormDoes) {
  ThreadPool pool(2);
  for (const ActivationQuant& input : input_roundings()) {
    Rng rng(9);
    const GridLinear linear = make_linear(input, pool);
    const auto packed = linear.packed();
    ASSERT_TRUE(packed);
    EXPECT_EQ(packed->input, input);
    const MatrixF X = uneven_matrix(5, 32, rng);
    MatrixF wanted(5, 7), found(5, 7);
    make_linear_kernel(*packed, best_isa())->run(X.view(), wanted.view(), pool);
    linear.run(X.view(), found.view(), pool);
    for (std::size_t k = 0; k < found.size(); ++k) {
      EXPECT_NEAR(found.data()[k], wanted.data()[k],
                  2e-6f * (1000 + std::abs(wanted.data()[k])))
          << describe_rounding(input);
    }
  }
}

// dL/dW is of the inputs as they run: W moves as if they were those numbers.
TEST(GridLinear, LearnsFromInputsAsTheyAreRounded) {
  ThreadPool pool(2);
  for (const ActivationQuant& input : input_roundings()) {
    Rng rng(3);
    const MatrixF X = uneven_matrix(6, 32, rng), dY = random_matrix(6, 7, rng);
    MatrixF rounded(X.view());
    if (input.kind != ActivationQuant::Kind::kNone) {
      quantize_activations_in_place(input, rounded.view());
    }
    const auto gradient = [&](const ActivationQuant& rounding,
                              const MatrixF& given) {
      GridLinear linear = make_linear(rounding, pool);
      MatrixF dX(6, 32);
      linear.run_backward(given.view(), dY.view(), dX.view(), pool);
      std::vector<Parameter> all;
      linear.list_parameters("l", all);
      std::vector<float> numbers(dX.data().begin(), dX.data().end());
      for (const Parameter& parameter : all) {
        numbers.insert(numbers.end(), parameter.gradient.begin(),
                       parameter.gradient.end());
      }
      return numbers;
    };
    EXPECT_EQ(gradient(input, X), gradient({}, rounded))
        << describe_rounding(input);
  }
}

}  // namespace
}  // namespace llmpress
