// Diff pruning (Guo, Rush and Kim 2020, arXiv:2012.07463): a difference of the
// frozen weights learns with a hard-concrete gate (pruning/hard_concrete.h) on
// every number, towards
//   L(z o w) + penalty * mean P(z > 0)
// In the first two thirds of the steps gates are drawn anew for every pass;
// then the `keep` largest |z w| of all weights together stay, every other gate
// is shut for good, and the values that stay learn on (section 3.3).
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "compress/model/training/difference_linear.h"
#include "distill/objective.h"

namespace llmpress {

struct DifferenceJob {
  std::vector<DifferenceLinear*> linears{};  // must outlive the objective
  std::size_t keep = 1;                      // numbers
  double penalty = 1;
  std::size_t steps = 1, sequences_per_step = 1;
  float label_smoothing = 0;
  Isa isa = best_isa();
};

// Where the log_alpha of a gate stands that is decided for good, or minus it:
// none that learns comes near.
inline constexpr float kDecided = 100;
// Where it begins: P(z > 0) = 0.999.
inline constexpr float kFirstLogAlpha = 5;

std::unique_ptr<Objective> difference_objective(const DifferenceJob& job);

// Shuts the gates of all numbers but the `keep` largest |z w|, those first in
// order where magnitudes are equal, and puts their gates into w.
void decide_gates(std::span<DifferenceLinear* const> linears, std::size_t keep,
                  ThreadPool& pool);

}  // namespace llmpress
