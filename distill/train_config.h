// How a model is trained, whatever on: one table row a setting, from which the
// recipe's keys, the resolved recipe and the reference page come.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "compress/core/setting.h"
#include "distill/optimizers/schedule.h"

namespace llmpress {

enum class OptimizerKind { kAdamW, kAdamW8Bit, kSgd };
enum class WeightPrecision {
  kF32,
  kBf16,  // rounded stochastically after every step (arXiv:2010.06192)
};

struct TrainConfig {
  // The work: as many steps as given, or as the tokens or epochs need.
  std::size_t steps = 0, tokens = 0;
  double epochs = 0;
  std::size_t sequence_length = 256;  // tokens
  std::size_t batch_size = 16;        // sequences of one pass
  std::size_t accumulation = 1;       // passes of one step

  OptimizerKind optimizer = OptimizerKind::kAdamW;
  double learning_rate = 1e-3;
  LearningRateDecay decay = LearningRateDecay::kCosine;
  double warmup = 0.05;       // fraction of the steps
  double minimum = 0.1;       // of the learning rate, at the end
  double weight_decay = 0.1;  // of matrices
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double momentum = 0.9;  // kSgd
  bool nesterov = false;
  double clip = 1.0;  // largest norm of the gradient; 0: off
  double label_smoothing = 0;
  double dropout = 0, attention_dropout = 0;
  std::size_t seed = 0;

  WeightPrecision weights = WeightPrecision::kF32;
  bool keep_zeros = false;
  bool keep_activations = true;

  std::size_t evaluate_every = 0;  // steps; 0: a tenth of them
  std::size_t evaluate_sequences = 64;
  std::size_t patience = 0;          // evaluations; 0: never stops early
  std::size_t checkpoint_every = 0;  // steps; 0: with every evaluation
  // A loss this many times its running mean is a jump.
  double divergence_factor = 2;

  bool operator==(const TrainConfig&) const = default;
};

std::span<const Setting<TrainConfig>> train_settings();

// Throws Error(kInvalidArgument) naming the key, for what single settings cannot
// see.
void check(const TrainConfig& config);

}  // namespace llmpress
