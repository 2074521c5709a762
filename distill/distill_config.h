// What distillation adds to training: one table row a setting (setting.h).
#pragma once

#include <span>

#include "compress/core/setting.h"
#include "distill/losses/hidden_state_loss.h"
#include "distill/losses/kl_divergence.h"

namespace llmpress {

struct DistillConfig {
  // Weights of the terms. 1 and 0: without a teacher.
  double cross_entropy = 0.5, divergence = 0.5, hidden = 0;
  DivergenceKind kind = DivergenceKind::kForward;
  double temperature = 1;
  double beta = 0.5;  // of kJensenShannon
  HiddenStateDistance distance = HiddenStateDistance::kCosine;

  bool operator==(const DistillConfig&) const = default;
};

std::span<const Setting<DistillConfig>> distill_settings();

// Throws Error(kInvalidArgument) naming the key, for what single settings cannot
// see.
void check(const DistillConfig& config);

}  // namespace llmpress
