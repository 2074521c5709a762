#include "distill/optimizers/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace llmpress {
namespace {

// In [0, 1] of what is above the minimum; x is the progress after the warm-up.
double remaining(LearningRateDecay decay, double x) {
  switch (decay) {
    case LearningRateDecay::kConstant:
      return 1;
    case LearningRateDecay::kLinear:
      return 1 - x;
    case LearningRateDecay::kCosine:
      return 0.5 * (1 + std::cos(std::numbers::pi * x));
  }
  return 1;
}

}  // namespace

float learning_rate_at(const ScheduleConfig& config, std::size_t step) {
  const auto peak = double{config.peak};
  const auto warmup = static_cast<double>(config.warmup_steps);
  const auto s = static_cast<double>(step);
  if (step < config.warmup_steps) return static_cast<float>(peak * s / warmup);
  const double length = static_cast<double>(config.total_steps) - warmup;
  const double x = std::min(1.0, (s - warmup) / std::max(1.0, length));
  const auto minimum = double{config.minimum_fraction};
  return static_cast<float>(
      peak * (minimum + (1 - minimum) * remaining(config.decay, x)));
}

}  // namespace llmpress
