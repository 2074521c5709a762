// The `prune` stage of a recipe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "quantizers/quantize_config.h"
#include "recipes/layer_selection.h"
#include "recipes/source_position.h"

namespace llmpress {

// kMagnitude..kSparseGpt set single weights to zero; the others remove whole
// FFN channels, attention heads (GQA groups), hidden channels or blocks.
enum class PruneMethod {
  kMagnitude,
  kWanda,
  kSparseGpt,
  kFfn,
  kHeads,
  kHidden,
  kDepth,
};
enum class SparsityAllocation { kUniform, kOwl };
enum class Importance { kWeights, kActivations, kGradients };

struct PruneConfig {
  PruneMethod method = PruneMethod::kWanda;
  double sparsity = 0.5;  // fraction removed, [0, 1)
  // n:m: at most `keep` of every aligned `of` columns stay; 0: unstructured.
  std::size_t keep = 0, of = 0;
  SparsityAllocation allocation = SparsityAllocation::kUniform;
  double owl_threshold = 5;  // M of OWL (arXiv:2310.05175): times the mean
  double owl_lambda = 0.08;  // largest deviation of a layer's sparsity
  // SparseGPT's solve.
  double damping_fraction = 0.01;
  DampingPolicy damping_policy = DampingPolicy::kRaise;
  double damping_increment = 0.01, damping_bound = 1.0;
  std::size_t block_size = 128;
  // Structured methods.
  Importance importance = Importance::kActivations;
  bool heal = true;  // least squares on the kept weights of the consumer

  bool operator==(const PruneConfig&) const = default;
};

struct PruneStage {
  PruneConfig config{};
  LayerSelection layers{};
  SourcePosition position{};

  bool operator==(const PruneStage&) const = default;
};

}  // namespace llmpress
