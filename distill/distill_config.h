// What distillation adds to training: one table row a setting (setting.h).
#pragma once

#include <span>

#include "compress/core/setting.h"
#include "distill/losses/hidden_state_loss.h"
#include "distill/losses/kl_divergence.h"
#include "distill/losses/top_k_divergence.h"

namespace llmpress {

enum class RelationKind { kAll, kQueries, kKeys, kValues };

struct DistillConfig {
  // Weights of the terms. 1 and 0: without a teacher.
  double cross_entropy = 0.5, divergence = 0.5, hidden = 0, relation = 0;
  DivergenceKind kind = DivergenceKind::kForward;
  double temperature = 1;
  double beta = 0.5;      // of kJensenShannon
  std::size_t top_k = 0;  // of the teacher's tokens; 0: all
  TopKRest rest = TopKRest::kTail;
  HiddenStateDistance distance = HiddenStateDistance::kCosine;
  // Which relations of which block of the student's, counted from 1 (0: the
  // last), cut into how many heads (0: as both models' key/value heads allow).
  RelationKind relation_of = RelationKind::kAll;
  std::size_t relation_block = 0, relation_heads = 0;
  // The share of passes whose texts the student writes itself (lambda of GKD,
  // arXiv:2306.13649, Algorithm 1), from so many tokens of the text on.
  double on_policy = 0;
  std::size_t on_policy_prompt = 32;
  double on_policy_temperature = 1;

  bool operator==(const DistillConfig&) const = default;
};

std::span<const Setting<DistillConfig>> distill_settings();

// Throws Error(kInvalidArgument) naming the key, for what single settings cannot
// see.
void check(const DistillConfig& config);

}  // namespace llmpress
