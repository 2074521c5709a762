// An operation's backward against central differences of its forward, summed in
// double: L = sum c . outputs with random c; every input and parameter is moved
// by two steps, whose differences are extrapolated (Richardson). Beside it: the
// same bytes at any thread count, gradients added to what is there, and none
// asked for where none is wanted.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/rng.h"
#include "compress/model/ops/op_gradients.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress::testing {

// What an operation is run on. Everything but the routings is differentiated.
struct GradientProblem {
  std::vector<Activations> inputs{};
  std::vector<std::vector<float>> parameters{};
  std::vector<NormWeights> norms{};
  std::vector<std::size_t> sequences{};  // rows of each
  std::vector<std::shared_ptr<RopePositions>> ropes{};
  std::size_t layer = 0;
  std::size_t outputs = 1;
  std::vector<MatrixF> factors{};  // c of each output; empty: random
  // Inputs and parameters that the operation has no gradient of.
  std::vector<std::size_t> constant_inputs{}, constant_parameters{};
  Isa isa = best_isa();
  std::size_t threads = 2;
};

template <class Op>
class GradientCheck {
 public:
  GradientCheck(Op op, GradientProblem problem)
      : op_(std::move(op)), problem_(std::move(problem)) {
    for (const std::size_t rows : problem_.sequences) {
      segments_.push_back({.rows = rows});
    }
    run_forward();
    factors_ = problem_.factors;
    if (!factors_.empty()) return;
    Rng rng(7);
    for (const Activations& out : out_) {
      factors_.push_back(random_matrix(out.rows.rows(), out.rows.cols(), rng));
    }
  }

  // |backward - difference| <= tolerance (|backward| + rms of the gradient).
  void expect_equal(double tolerance = 1e-3) {
    run_backward();
    for (std::size_t i = 0; i < problem_.inputs.size(); ++i) {
      if (is_in(problem_.constant_inputs, i)) continue;
      compare("input " + std::to_string(i), problem_.inputs[i].rows.data(),
              d_in_[i].data(), tolerance);
    }
    for (std::size_t p = 0; p < problem_.parameters.size(); ++p) {
      if (is_in(problem_.constant_parameters, p)) continue;
      compare("parameter " + std::to_string(p), problem_.parameters[p],
              own_.parameters[p], tolerance);
    }
    for (std::size_t n = 0; n < problem_.norms.size(); ++n) {
      compare("gain", problem_.norms[n].gain, own_.norms[n].gain, tolerance);
      compare("bias", problem_.norms[n].bias, own_.norms[n].bias, tolerance);
    }
  }

  // Every gradient, one after another.
  std::vector<float> gradients() {
    run_backward();
    return all_gradients();
  }

  // A second run adds as much again.
  void expect_adds() {
    run_backward();
    const std::vector<float> once = all_gradients();
    run_forward();
    backward(op_, context(), arguments());
    const std::vector<float> twice = all_gradients();
    for (std::size_t i = 0; i < once.size(); ++i) {
      EXPECT_NEAR(twice[i], 2 * once[i], 1e-5f * (1 + std::abs(once[i])))
          << "gradient " << i;
    }
  }

  // An input of which no gradient is wanted gets none and changes no other, and
  // so do the block's own numbers.
  void expect_only_wanted() {
    run_backward();
    const std::vector<MatrixF> all = d_in_;
    const BlockGradients own = std::exchange(own_, {});
    for (std::size_t skipped = 0; skipped < all.size(); ++skipped) {
      d_in_.assign(all.size(), {});
      OpGradients gradients = arguments();
      gradients.d_in[skipped] = nullptr;
      backward(op_, context(), gradients);
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (gradients.d_in[i] == nullptr) continue;
        EXPECT_TRUE(std::ranges::equal(all[i].data(), d_in_[i].data()))
            << "input " << i << " without that of " << skipped;
      }
    }
    own_ = own;
  }

 private:
  static bool is_in(const std::vector<std::size_t>& list, std::size_t i) {
    return std::ranges::find(list, i) != list.end();
  }

  OpContext context() {
    return {.layer = problem_.layer,
            .segments = segments_,
            .norms = problem_.norms,
            .parameters = problem_.parameters,
            .ropes = problem_.ropes,
            .isa = problem_.isa,
            .pool = &pool_};
  }

  void run_forward() {
    out_.assign(problem_.outputs, {});
    OpArguments arguments;
    for (Activations& value : problem_.inputs) {
      arguments.in.push_back(&value);
      arguments.last_use.push_back(false);
    }
    for (Activations& value : out_) arguments.out.push_back(&value);
    run(op_, context(), arguments);
  }

  double loss() {
    run_forward();
    double sum = 0;
    for (std::size_t o = 0; o < out_.size(); ++o) {
      for (std::size_t i = 0; i < factors_[o].size(); ++i) {
        sum += static_cast<double>(factors_[o].data()[i]) *
               static_cast<double>(out_[o].rows.data()[i]);
      }
    }
    return sum;
  }

  OpGradients arguments() {
    OpGradients gradients;
    for (std::size_t i = 0; i < d_in_.size(); ++i) {
      gradients.in.push_back(&problem_.inputs[i]);
      gradients.d_in.push_back(is_in(problem_.constant_inputs, i) ? nullptr
                                                                  : &d_in_[i]);
    }
    for (std::size_t o = 0; o < out_.size(); ++o) {
      gradients.out.push_back(&out_[o]);
      gradients.d_out.push_back(&factors_[o]);
    }
    gradients.own = &own_;
    return gradients;
  }

  void run_backward() {
    run_forward();
    d_in_.assign(problem_.inputs.size(), {});
    own_ = {};
    for (const auto& p : problem_.parameters) {
      own_.parameters.emplace_back(p.size());
    }
    for (const NormWeights& n : problem_.norms) {
      own_.norms.push_back({.gain = std::vector<float>(n.gain.size()),
                            .bias = std::vector<float>(n.bias.size())});
    }
    backward(op_, context(), arguments());
  }

  std::vector<float> all_gradients() const {
    std::vector<float> all;
    const auto append = [&](std::span<const float> values) {
      all.insert(all.end(), values.begin(), values.end());
    };
    for (const MatrixF& d : d_in_) append(d.data());
    for (const auto& p : own_.parameters) append(p);
    for (const NormGradients& n : own_.norms) {
      append(n.gain);
      append(n.bias);
    }
    return all;
  }

  double difference(float& x, double step) {
    const float at = x;
    x = static_cast<float>(static_cast<double>(at) + step);
    const double above = loss(), moved_up = static_cast<double>(x);
    x = static_cast<float>(static_cast<double>(at) - step);
    const double below = loss(), moved_down = static_cast<double>(x);
    x = at;
    return (above - below) / (moved_up - moved_down);
  }

  void compare(const std::string& what, std::span<float> at,
               std::span<const float> found, double tolerance) {
    constexpr double kStep = 1.0 / 64;
    ASSERT_EQ(at.size(), found.size()) << what;
    double squares = 0;
    for (const float g : found) squares += static_cast<double>(g * g);
    const double rms = std::sqrt(
        squares / static_cast<double>(std::max<std::size_t>(1, found.size())));
    for (std::size_t i = 0; i < at.size(); ++i) {
      const double wide = difference(at[i], 2 * kStep);
      const double near = difference(at[i], kStep);
      const double expected = (4 * near - wide) / 3;
      EXPECT_NEAR(found[i], expected, tolerance * (std::abs(expected) + rms))
          << what << ", element " << i;
    }
  }

  Op op_;
  GradientProblem problem_;
  ThreadPool pool_{problem_.threads};
  std::vector<Segment> segments_{};
  std::vector<Activations> out_{};
  std::vector<MatrixF> factors_{}, d_in_{};
  BlockGradients own_{};
};

template <class Op>
void expect_gradients(Op op, GradientProblem problem, double tolerance = 1e-3) {
  GradientCheck<Op> check(op, problem);
  check.expect_equal(tolerance);
  check.expect_adds();
  check.expect_only_wanted();
  std::vector<float> found[2];
  for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
    problem.threads = threads;
    found[threads / 3] = GradientCheck<Op>(op, problem).gradients();
  }
  EXPECT_EQ(found[0], found[1]) << "with 1 and with 3 threads";
}

// Values of independent normal numbers.
inline Activations random_value(std::size_t rows, std::size_t cols, Rng& rng,
                                double scale = 1) {
  return {.rows = random_matrix(rows, cols, rng, scale)};
}

}  // namespace llmpress::testing
