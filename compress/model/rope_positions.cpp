#include "compress/model/rope_positions.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace llmpress {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;
constexpr std::size_t kFirstPositions = 256;

double llama3_frequency(const RopeConfig& rope, double f) {
  const auto original = static_cast<double>(rope.original_max_positions);
  const double wavelength = kTwoPi / f;
  if (wavelength < original / rope.high_freq_factor) return f;
  if (wavelength > original / rope.low_freq_factor) return f / rope.factor;
  const double t = (original / wavelength - rope.low_freq_factor) /
                   (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - t) * f / rope.factor + t * f;
}

// The pair (as a real number) that turns `turns` times in the original context.
double yarn_pair(const RopeConfig& rope, double turns, double dim) {
  const auto original = static_cast<double>(rope.original_max_positions);
  return dim * std::log(original / (turns * kTwoPi)) /
         (2 * std::log(rope.theta));
}

void apply_yarn(const RopeConfig& rope, std::size_t head_dim,
                std::vector<double>& frequencies) {
  const auto dim = static_cast<double>(head_dim);
  double low = yarn_pair(rope, rope.beta_fast, dim);
  double high = yarn_pair(rope, rope.beta_slow, dim);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;  // as the reference: no division by zero
  for (std::size_t j = 0; j < frequencies.size(); ++j) {
    const double ramp =
        std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    double& f = frequencies[j];
    f = f / rope.factor * ramp + f * (1 - ramp);
  }
}

}  // namespace

std::vector<double> rope_frequencies(const RopeConfig& rope,
                                     std::size_t head_dim) {
  std::vector<double> frequencies(head_dim / 2);
  for (std::size_t j = 0; j < frequencies.size(); ++j) {
    frequencies[j] = std::pow(rope.theta, -2.0 * static_cast<double>(j) /
                                              static_cast<double>(head_dim));
  }
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      for (double& f : frequencies) f /= rope.factor;
      break;
    case RopeScaling::kLlama3:
      for (double& f : frequencies) f = llama3_frequency(rope, f);
      break;
    case RopeScaling::kYarn:
      apply_yarn(rope, head_dim, frequencies);
      break;
  }
  return frequencies;
}

RopePositions::RopePositions(const Architecture& arch)
    : frequencies_(rope_frequencies(arch.rope, arch.head_dim)),
      attention_factor_(arch.rope.attention_factor) {}

std::shared_ptr<const RopeTables> RopePositions::at_least(
    std::size_t positions) {
  const std::lock_guard lock(mutex_);
  const std::size_t have = tables_ ? tables_->cos.rows() : 0;
  if (have < positions || !tables_) {
    const std::size_t grown = std::max({positions, 2 * have, kFirstPositions});
    tables_ = std::make_shared<const RopeTables>(
        make_rope_tables(grown, frequencies_, attention_factor_));
  }
  return tables_;
}

}  // namespace llmpress
