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
  // Llama 4's factors are equal: nothing lies between.
  if (rope.high_freq_factor == rope.low_freq_factor) return f;
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

void apply_yarn(const RopeConfig& rope, std::vector<double>& frequencies) {
  const auto dim = static_cast<double>(rope.dim);
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
                                     bool beyond_original) {
  std::vector<double> frequencies(rope.dim / 2);
  for (std::size_t j = 0; j < frequencies.size(); ++j) {
    frequencies[j] = std::pow(rope.theta, -2.0 * static_cast<double>(j) /
                                              static_cast<double>(rope.dim));
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
      apply_yarn(rope, frequencies);
      break;
    case RopeScaling::kLongRope: {
      const auto& factors =
          beyond_original ? rope.long_factor : rope.short_factor;
      for (std::size_t j = 0; j < frequencies.size(); ++j) {
        frequencies[j] /= factors.at(j);
      }
      break;
    }
    case RopeScaling::kProportional:
      for (std::size_t j = 0; j < frequencies.size(); ++j) {
        frequencies[j] =
            j < rope.turning_pairs ? frequencies[j] / rope.factor : 0;
      }
      break;
  }
  return frequencies;
}

RopePositions::RopePositions(const RopeConfig& rope) : rope_(rope) {
  within_.frequencies = rope_frequencies(rope, false);
  beyond_.frequencies = rope_frequencies(rope, true);
}

std::shared_ptr<const RopeTables> RopePositions::at_least(std::size_t positions,
                                                          std::size_t context) {
  const std::lock_guard lock(mutex_);
  const bool beyond = rope_.scaling == RopeScaling::kLongRope &&
                      context > rope_.original_max_positions;
  Growing& growing = beyond ? beyond_ : within_;
  const std::size_t have = growing.tables ? growing.tables->cos.rows() : 0;
  if (have < positions || !growing.tables) {
    const std::size_t grown = std::max({positions, 2 * have, kFirstPositions});
    growing.tables = std::make_shared<const RopeTables>(
        make_rope_tables(grown, growing.frequencies, rope_.attention_factor));
  }
  return growing.tables;
}

}  // namespace llmpress
