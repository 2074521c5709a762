// Everything a recipe's `prune` stage can say, with its defaults, and what is
// asked of its methods. A new method: its file pair, its line in PruneMethod and
// in prune_methods(), its keys in prune_settings(); one that sets single weights
// to zero has a row in method.cpp too.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "compress/core/damping.h"
#include "compress/core/setting.h"

namespace llmpress {

// The first three set single weights to zero (rows of weight_pruners()). The
// others remove whole FFN channels, attention heads in whole key/value groups,
// channels of the residual stream, blocks, or experts of mixtures; kKvHeads
// turns multi-head into grouped-query attention.
enum class PruneMethod {
  kMagnitude,
  kWanda,
  kSparseGpt,
  kFfn,
  kHeads,
  kHidden,
  kDepth,
  kKvHeads,
  kExperts,
};

// How the recipe's sparsity is spread over the blocks.
enum class SparsityAllocation {
  kUniform,
  kOwl,  // by outlier ratios, owl.h
};

// What a structured removal ranks by.
enum class Importance {
  kWeights,      // L2 norm of the weights that go
  kActivations,  // mean |activation| (heads: mean L2 norm), Minitron
  kGradients,    // |sum of weight * gradient|, first order
  kLearned,      // by gates that are learned, hard_concrete.h
};

// What decides which blocks go.
enum class DepthImportance {
  kCosine,      // block influence, 1 - cos(input, output)
  kPerplexity,  // of the model without the block
  kLearned,     // by gates that are learned, hard_concrete.h
};

// What decides which experts of a mixture go.
enum class ExpertImportance {
  kMass,         // sum of the routing weights
  kReap,         // mean weight times norm of the output, expert_importance.h
  kOutputError,  // of the mixture without it, expert_removal.h
};

// How the key/value heads of a group become one.
enum class KvGrouping {
  kMeanPool,    // neighbours, averaged
  kCalibrated,  // alike ones together, fitted to calibration data
};

// How weights with zeros are written: as if they were dense, which every loader
// takes, or without the zeros, packed (SparseWeight).
enum class SparseStorage { kDense, kSparse };

// One `prune` stage.
struct PruneConfig {
  PruneMethod method = PruneMethod::kWanda;
  double sparsity = 0.5;  // fraction removed, [0, 1); with a pattern ignored
  // n:m: `keep` of every aligned `of` inputs stay (2:4: two of four), so that
  // the sparsity is 1 - keep / of. 0: unstructured.
  std::size_t keep = 0, of = 0;
  SparsityAllocation allocation = SparsityAllocation::kUniform;
  double owl_threshold = 5;  // M of OWL (arXiv:2310.05175): times the mean
  double owl_lambda = 0.08;  // largest deviation of a layer's sparsity
  // Wanda's variant: each row's sparsity follows its own distribution of
  // scores.
  bool wanda_variant = false;
  // SparseGPT's solve; the damping also of healing.
  std::size_t block_size = 128;    // columns that choose their mask together
  double damping_fraction = 0.01;  // of mean(diag H)
  DampingPolicy damping_policy = DampingPolicy::kRaise;
  double damping_increment = 0.01, damping_bound = 1.0;
  SparseStorage storage = SparseStorage::kDense;
  // Structured methods.
  Importance importance = Importance::kActivations;
  DepthImportance depth_importance = DepthImportance::kCosine;
  ExpertImportance expert_importance = ExpertImportance::kReap;
  KvGrouping kv_grouping = KvGrouping::kMeanPool;  // kKvHeads
  std::size_t kv_heads = 0;     // kKvHeads: left afterwards, divides the heads
  std::size_t multiple_of = 1;  // kFfn, kHidden: the kept count is a multiple
  // kLearned: steps of so many calibration sequences, at this rate of log
  // alpha.
  std::size_t mask_steps = 200, mask_batch = 8;
  double mask_rate = 0.1;
  // Of the weights, which then learn along with the gates; 0: they stay.
  double mask_weight_rate = 0;
  std::size_t mask_seed = 0;
  // Least squares on the kept weights of the consumer; not for kExperts.
  bool heal = true;

  bool patterned() const { return of != 0; }
  // Whether gates are learned to choose by.
  bool learns_masks() const;
  // Whether weights learn with them.
  bool learns_weights() const { return learns_masks() && mask_weight_rate > 0; }
  // What is asked of every Linear: 1 - keep / of, or `sparsity`.
  double target_sparsity() const {
    return patterned()
               ? 1.0 - static_cast<double>(keep) / static_cast<double>(of)
               : sparsity;
  }
  DampingConfig damping() const {
    return {damping_fraction, damping_policy, damping_increment, damping_bound};
  }
  bool operator==(const PruneConfig&) const = default;
};

struct PruneMethodFacts {
  PruneMethod method{};
  std::string_view name;        // "sparsegpt"
  std::string_view summary;     // one line of Markdown
  bool single_weights = false;  // else it changes the model's shape
  // Whether it runs calibration text through the model: to rank, to merge, to
  // solve.
  bool (*learns)(const PruneConfig&) = nullptr;
};
std::span<const PruneMethodFacts> prune_methods();
const PruneMethodFacts& facts_of(PruneMethod method);

bool removes_single_weights(PruneMethod method);
// To prune, to heal or to spread the sparsity.
bool needs_calibration(const PruneConfig& config);

// All keys but `method`, `sparsity`, `pattern` and those of the selection.
std::span<const Setting<PruneConfig>> prune_settings();

// Throws Error(kInvalidArgument) naming the key that is out of range.
void check(const PruneConfig& config);

}  // namespace llmpress
