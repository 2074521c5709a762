// One step of the configured optimizer over all parameters of a model.
#pragma once

#include <cstddef>
#include <span>
#include <variant>
#include <vector>

#include "compress/core/optimizers/adamw.h"
#include "compress/core/parallel.h"
#include "compress/core/rng.h"
#include "compress/model/training/parameter.h"
#include "distill/optimizers/adamw8bit.h"
#include "distill/optimizers/sgd.h"
#include "distill/train_config.h"

namespace llmpress {

using OptimizerState = std::variant<AdamWState, AdamW8BitState, SgdState>;

class ParameterOptimizer {
 public:
  // The parameters' spans must outlive this.
  ParameterOptimizer(std::span<const Parameter> parameters,
                     const TrainConfig& config);

  // Gradients of weights that are 0 are dropped first where the configuration
  // keeps zeros. Returns the norm of the gradient before clipping; if that is
  // not finite, nothing was changed. `step` counts from 1.
  double step(std::size_t step, double learning_rate, ThreadPool& pool);

  // [parameters], to be stored and given back.
  std::vector<OptimizerState>& states() { return states_; }
  const std::vector<OptimizerState>& states() const { return states_; }

 private:
  void keep_zeros(const Parameter& parameter, ThreadPool& pool) const;
  void round_stochastically(std::size_t step, std::size_t index,
                            ThreadPool& pool) const;

  std::span<const Parameter> parameters_;
  TrainConfig config_;
  std::vector<OptimizerState> states_;
};

}  // namespace llmpress
