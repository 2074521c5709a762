// Which experts of a block's mixture stay: measured on the calibration tokens
// that reach the block.
//
// By mass and by REAP (pruning/expert_importance.h) from the tokens that are
// routed to each expert. By the error of the output (pruning/expert_removal.h)
// from what every expert gives for the first kProbeLength tokens of the
// sequences, as many as expert_probe_tokens() says. Where experts work in a
// space of their own (Nemotron 3), their outputs are those before the way back.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "compress/calibration/calibration_states.h"
#include "compress/calibration/dense_block.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/model/facts.h"
#include "pruning/expert_removal.h"
#include "pruning/prune_config.h"

namespace llmpress {

struct ExpertChoiceJob {
  const Architecture* arch = nullptr;
  std::size_t layer = 0;
  ExpertImportance importance = ExpertImportance::kReap;
  std::size_t kept = 0;  // a multiple of the groups of the routing
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
};

struct RemovedExpert {
  std::size_t expert = 0;
  // Mass, REAP, or the rise of the output's relative error.
  double importance = 0;
  double mass_share = 0;  // of the weight that the router gave in all
};

struct ExpertChoice {
  std::vector<std::size_t> kept{};       // ascending
  std::vector<RemovedExpert> removed{};  // ascending
};

// Of a block that has a mixture (expert_units()); `states` hold its inputs.
ExpertChoice choose_experts(const ExpertChoiceJob& job, const DenseBlock& block,
                            const CalibrationStates& states);

// The mixture of a block on the tokens that its error is measured with.
MixtureOutputs probe_mixture(const ExpertChoiceJob& job,
                             const DenseBlock& block,
                             const CalibrationStates& states);

constexpr std::size_t kProbeLength = 256;
// 4096, or fewer where the products of that many would not fit 512 MiB.
std::size_t expert_probe_tokens(std::size_t experts);

// The weights g(x; S) [tokens, experts] of the router's logits [tokens,
// experts] where only the experts of `stays` are there; `bias` as RouteOp::bias
// or empty. Once weighed (CombineOp), each chosen expert counts 1.
MatrixF route_among(const ExpertUnits& units, std::span<const float> bias,
                    MatrixF logits, const std::vector<bool>& stays,
                    ThreadPool& pool);

// "mass", "REAP" or what the number is otherwise, for reports.
std::string_view name_of(ExpertImportance importance);

}  // namespace llmpress
