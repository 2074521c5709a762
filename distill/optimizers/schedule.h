// The learning rate of a step: a linear warm-up from 0 to the peak, then
// constant, linear or cosine decay to a fraction of the peak.
//
// With warm-up w and t steps in all, step s counted from 0:
//   s < w:  peak s / w
//   else with x = min(1, (s - w) / max(1, t - w)) and minimum fraction f
//     constant  peak
//     linear    peak (f + (1 - f) (1 - x))
//     cosine    peak (f + (1 - f) (1 + cos pi x) / 2)
//
// The semantics of Hugging Face's get_constant_schedule_with_warmup,
// get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup (half a wave)
// and, for f > 0, get_cosine_with_min_lr_schedule_with_warmup: the first of the
// optimizer's steps takes s = 0. Differs: past the last step the rate stays at
// its minimum, where their cosine rises again.
#pragma once

#include <cstddef>

namespace llmpress {

enum class LearningRateDecay { kConstant, kLinear, kCosine };

struct ScheduleConfig {
  float peak = 1e-4f;
  LearningRateDecay decay = LearningRateDecay::kCosine;
  std::size_t warmup_steps = 0;
  std::size_t total_steps = 1;
  float minimum_fraction = 0;  // of the peak, in [0, 1]; not of kConstant
};

float learning_rate_at(const ScheduleConfig& config, std::size_t step);

}  // namespace llmpress
