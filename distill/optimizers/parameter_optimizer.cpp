#include "distill/optimizers/parameter_optimizer.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "distill/optimizers/gradient_norm.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = std::size_t{1} << 16;

OptimizerState empty_state(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kAdamW:
      return AdamWState{};
    case OptimizerKind::kAdamW8Bit:
      return AdamW8BitState{};
    case OptimizerKind::kSgd:
      return SgdState{};
  }
  return {};
}

bool is_matrix(const Parameter& parameter) {
  return parameter.decays && parameter.shape.size() > 1;
}

// The neighbours of w in bf16 with the probabilities of their distances.
float round_to_bf16(float w, std::uint32_t noise) {
  if (!std::isfinite(w)) return w;
  const auto bits = std::bit_cast<std::uint32_t>(w) + (noise & 0xffffu);
  return std::bit_cast<float>(bits & 0xffff0000u);
}

}  // namespace

ParameterOptimizer::ParameterOptimizer(std::span<const Parameter> parameters,
                                       const TrainConfig& config)
    : parameters_(parameters),
      config_(config),
      states_(parameters.size(), empty_state(config.optimizer)) {}

void ParameterOptimizer::keep_zeros(const Parameter& parameter,
                                    ThreadPool& pool) const {
  const float* const w = parameter.value.data();
  float* const g = parameter.gradient.data();
  pool.for_ranges(parameter.value.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t i = begin; i < end; ++i) {
                      if (w[i] == 0) g[i] = 0;
                    }
                  });
}

// The noise of an element depends on the step, the tensor and its place.
void ParameterOptimizer::round_stochastically(std::size_t step,
                                              std::size_t index,
                                              ThreadPool& pool) const {
  const std::span<float> w = parameters_[index].value;
  pool.for_ranges(
      w.size(), kElementsPerTask, [&](std::size_t begin, std::size_t end) {
        Rng mixed(config_.seed + step);
        Rng rng(mixed.next() + (std::uint64_t{index} << 40) + begin);
        for (std::size_t i = begin; i < end; ++i) {
          w[i] = round_to_bf16(w[i], static_cast<std::uint32_t>(rng.next()));
        }
      });
}

double ParameterOptimizer::step(std::size_t step, double learning_rate,
                                ThreadPool& pool) {
  std::vector<std::span<const float>> gradients;
  for (const Parameter& parameter : parameters_) {
    if (config_.keep_zeros && is_matrix(parameter)) {
      keep_zeros(parameter, pool);
    }
    gradients.emplace_back(parameter.gradient);
  }
  const double norm = gradient_norm(gradients, pool);
  if (!std::isfinite(norm)) return norm;
  const float factor = config_.clip > 0 ? clip_factor(norm, config_.clip) : 1;
  for (std::size_t p = 0; p < parameters_.size(); ++p) {
    const Parameter& parameter = parameters_[p];
    const float rate = static_cast<float>(learning_rate) * parameter.rate;
    const float decay =
        is_matrix(parameter) ? static_cast<float>(config_.weight_decay) : 0.0f;
    const AdamWConfig adam{config_.beta1, config_.beta2, config_.epsilon};
    if (auto* const state = std::get_if<AdamWState>(&states_[p])) {
      adamw_step(adam, step, rate, decay, factor, parameter.gradient,
                 parameter.value, *state, pool);
    } else if (auto* const small = std::get_if<AdamW8BitState>(&states_[p])) {
      adamw8bit_step(adam, step, rate, decay, factor, parameter.gradient,
                     parameter.value, *small, pool);
    } else {
      sgd_step({config_.momentum, config_.nesterov}, rate, decay, factor,
               parameter.gradient, parameter.value,
               std::get<SgdState>(states_[p]), pool);
    }
    if (config_.weights == WeightPrecision::kBf16) {
      round_stochastically(step, p, pool);
    }
  }
  return norm;
}

}  // namespace llmpress
