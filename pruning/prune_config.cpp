#include "pruning/prune_config.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

void require(bool holds, const std::string& what) {
  if (!holds) fail(ErrorCode::kInvalidArgument, "prune: {}", what);
}

void check_owl(const PruneConfig& config) {
  require(removes_single_weights(config.method) && !config.patterned(),
          "allocation: owl spreads an unstructured sparsity; a pattern fixes "
          "it and a structured method removes the same from every block");
  require(std::isfinite(config.owl_threshold) && config.owl_threshold > 0,
          formatted("owl_threshold: found {}, wanted a number above 0",
                    config.owl_threshold));
  require(config.owl_lambda >= 0 && 2 * config.owl_lambda <= config.sparsity &&
              config.sparsity + 2 * config.owl_lambda < 1,
          formatted("owl_lambda: found {}, wanted sparsity +- 2 owl_lambda "
                    "within [0, 1) at sparsity {}",
                    config.owl_lambda, config.sparsity));
}

}  // namespace

std::span<const PruneMethodFacts> prune_methods() {
  using Config = const PruneConfig&;
  const auto always = [](Config) { return true; };
  const auto never = [](Config) { return false; };
  const auto ranks = [](Config config) {
    return config.importance != Importance::kWeights;
  };
  static const PruneMethodFacts kMethods[] = {
      {PruneMethod::kMagnitude, "magnitude",
       "removes the smallest weights (arXiv:1506.02626)", true, never},
      {PruneMethod::kWanda, "wanda",
       "removes weights with small \\|weight\\| * norm of the input, row by "
       "row "
       "(arXiv:2306.11695)",
       true, always},
      {PruneMethod::kSparseGpt, "sparsegpt",
       "removes weights by second moments and makes the others pay "
       "(arXiv:2301.00774)",
       true, always},
      {PruneMethod::kFfn, "ffn", "removes whole FFN channels", false, ranks},
      {PruneMethod::kHeads, "heads",
       "removes attention heads in whole key/value groups", false, ranks},
      {PruneMethod::kHidden, "hidden",
       "removes channels of the residual stream", false, ranks},
      {PruneMethod::kDepth, "depth", "removes blocks", false, always},
      {PruneMethod::kKvHeads, "kv_heads",
       "turns multi-head into grouped-query attention", false,
       [](Config config) {
         return config.kv_grouping == KvGrouping::kCalibrated;
       }},
      {PruneMethod::kExperts, "experts", "removes experts of mixtures", false,
       always},
  };
  return kMethods;
}

const PruneMethodFacts& facts_of(PruneMethod method) {
  for (const PruneMethodFacts& facts : prune_methods()) {
    if (facts.method == method) return facts;
  }
  throw std::logic_error("pruning method without facts");
}

bool PruneConfig::learns_masks() const {
  switch (method) {
    case PruneMethod::kFfn:
    case PruneMethod::kHeads:
    case PruneMethod::kHidden:
      return importance == Importance::kLearned;
    case PruneMethod::kDepth:
      return depth_importance == DepthImportance::kLearned;
    case PruneMethod::kMagnitude:
    case PruneMethod::kWanda:
    case PruneMethod::kSparseGpt:
    case PruneMethod::kKvHeads:
    case PruneMethod::kExperts:
      break;
  }
  return false;
}

bool removes_single_weights(PruneMethod method) {
  return facts_of(method).single_weights;
}

bool needs_calibration(const PruneConfig& config) {
  const PruneMethodFacts& method = facts_of(config.method);
  return method.learns(config) ||
         (method.single_weights ? config.allocation == SparsityAllocation::kOwl
                                : config.heal);
}

namespace {

constexpr Named<SparsityAllocation> kAllocationWords[] = {
    {"uniform", SparsityAllocation::kUniform},
    {"owl", SparsityAllocation::kOwl}};

constexpr Named<SparseStorage> kSparseStorageWords[] = {
    {"dense", SparseStorage::kDense}, {"sparse", SparseStorage::kSparse}};

constexpr Named<Importance> kImportanceWords[] = {
    {"weights", Importance::kWeights},
    {"activations", Importance::kActivations},
    {"gradients", Importance::kGradients},
    {"learned", Importance::kLearned}};

constexpr Named<DepthImportance> kDepthImportanceWords[] = {
    {"cosine", DepthImportance::kCosine},
    {"perplexity", DepthImportance::kPerplexity},
    {"learned", DepthImportance::kLearned}};

constexpr Named<ExpertImportance> kExpertImportanceWords[] = {
    {"mass", ExpertImportance::kMass},
    {"reap", ExpertImportance::kReap},
    {"output_error", ExpertImportance::kOutputError}};

constexpr Named<KvGrouping> kKvGroupingWords[] = {
    {"mean", KvGrouping::kMeanPool}, {"calibrated", KvGrouping::kCalibrated}};

template <PruneMethod... kMethods>
bool is_one_of(const PruneConfig& config) {
  return ((config.method == kMethods) || ...);
}

bool is_single(const PruneConfig& config) {
  return removes_single_weights(config.method);
}

bool heals(const PruneConfig& config) {
  return !is_single(config) && config.method != PruneMethod::kExperts;
}

bool is_owl(const PruneConfig& config) {
  return config.allocation == SparsityAllocation::kOwl;
}

bool learns_masks(const PruneConfig& config) { return config.learns_masks(); }

bool inverts(const PruneConfig& config) {
  return heals(config) || config.method == PruneMethod::kSparseGpt;
}

using C = PruneConfig;
using M = PruneMethod;
constexpr std::string_view kNeedsOwl = "needs 'allocation: owl'";
constexpr std::string_view kNeedsLearned =
    "needs 'importance: learned' or 'depth_importance: learned'";
constexpr Setting<PruneConfig> kSettings[] = {
    {"storage",
     "`dense`: zeros written out, any loader takes it; `sparse`: left out, for "
     "llmpress's sparse kernels; single weights only",
     word_at<kSparseStorageWords, &C::storage>(), is_single},
    {"allocation",
     "how sparsity is spread over the layers; single weights only",
     word_at<kAllocationWords, &C::allocation>(), is_single},
    {"owl_threshold", "OWL's M: an outlier is this many times the mean",
     number_at<&C::owl_threshold>(1e-3, 1e6), is_owl, kNeedsOwl},
    {"owl_lambda", "OWL's largest deviation of a layer's sparsity",
     number_at<&C::owl_lambda>(0, 0.5), is_owl, kNeedsOwl},
    {"wanda_variant", "`wanda`: each row's sparsity follows its own scores",
     bool_at<&C::wanda_variant>(), is_one_of<M::kWanda>},
    {"block_size", "`sparsegpt`: columns that choose their mask together",
     count_at<&C::block_size>(1, 1 << 20), is_one_of<M::kSparseGpt>},
    {"kv_heads", "`kv_heads`: key/value heads left",
     count_at<&C::kv_heads>(1, 1 << 20), is_one_of<M::kKvHeads>},
    {"kv_grouping",
     "`kv_heads`: how heads become one; `calibrated` is not for models that "
     "norm queries and keys (Qwen3)",
     word_at<kKvGroupingWords, &C::kv_grouping>(), is_one_of<M::kKvHeads>},
    {"multiple_of", "`ffn`, `hidden`: the kept count is a multiple of it",
     count_at<&C::multiple_of>(1, 1 << 20), is_one_of<M::kFfn, M::kHidden>},
    {"importance",
     "`ffn`, `heads`, `hidden`: what they rank by; `gradients` holds the whole "
     "model and its gradients in float32, `learned` the model and a batch",
     word_at<kImportanceWords, &C::importance>(),
     is_one_of<M::kFfn, M::kHeads, M::kHidden>},
    {"depth_importance", "`depth`: what blocks are ranked by",
     word_at<kDepthImportanceWords, &C::depth_importance>(),
     is_one_of<M::kDepth>},
    {"expert_importance",
     "`experts`: what they are ranked by, see "
     "[pruning_structured.md](methods/pruning_structured.md#fewer-experts)",
     word_at<kExpertImportanceWords, &C::expert_importance>(),
     is_one_of<M::kExperts>},
    {"mask_steps", "`learned`: steps of the gates",
     count_at<&C::mask_steps>(1, 1 << 20), learns_masks, kNeedsLearned},
    {"mask_batch", "`learned`: calibration sequences of a step",
     count_at<&C::mask_batch>(1, 1 << 20), learns_masks, kNeedsLearned},
    {"mask_rate", "`learned`: learning rate of the gates",
     number_at<&C::mask_rate>(1e-6, 100), learns_masks, kNeedsLearned},
    {"mask_weight_rate",
     "`learned`: learning rate of the weights, which learn along with the "
     "gates "
     "and are not healed (`heal: false`); 0: they stay as they are",
     number_at<&C::mask_weight_rate>(0, 100), learns_masks, kNeedsLearned},
    {"mask_seed", "`learned`: of the gates' noise and the order of sequences",
     count_at<&C::mask_seed>(0, std::size_t{1} << 62), learns_masks,
     kNeedsLearned},
    {"heal",
     "structured, but not `experts`: refit the weights that write to the "
     "residual stream by least squares",
     bool_at<&C::heal>(), heals},
    {"damping_fraction", "of the mean diagonal; `sparsegpt` and healing",
     number_at<&C::damping_fraction>(0, 100), inverts},
    {"damping_policy", "when the Hessian cannot be factored",
     word_at<kDampingPolicyWords, &C::damping_policy>(), inverts},
    {"damping_increment",
     "`raise`: added until it can, or `damping_bound` is passed",
     number_at<&C::damping_increment>(1e-9, 100), inverts},
    {"damping_bound", "`raise`: the largest damping",
     number_at<&C::damping_bound>(0, 100), inverts},
};

}  // namespace

std::span<const Setting<PruneConfig>> prune_settings() { return kSettings; }

void check(const PruneConfig& config) {
  require(config.sparsity >= 0 && config.sparsity < 1,
          formatted("sparsity: found {}, wanted a number in [0, 1)",
                    config.sparsity));
  const std::string pattern = formatted("{}:{}", config.keep, config.of);
  if (config.keep != 0 || config.of != 0) {
    require(config.keep >= 1 && config.keep < config.of,
            "pattern: found " + pattern + ", wanted n:m with 1 <= n < m");
    require(removes_single_weights(config.method),
            "pattern: " + pattern +
                " is for magnitude, wanda and sparsegpt, which remove single "
                "weights");
  }
  require(config.block_size >= 1, "block_size: found 0, wanted 1 or more");
  require(config.multiple_of >= 1, "multiple_of: found 0, wanted 1 or more");
  require(config.method != PruneMethod::kKvHeads || config.kv_heads >= 1,
          "kv_heads: found 0, wanted how many are left");
  require(!config.learns_weights() || !config.heal,
          "mask_weight_rate: weights that learned without the removed units "
          "are not refitted to outputs of the whole model; wanted 'heal: "
          "false'");
  if (config.allocation == SparsityAllocation::kOwl) check_owl(config);
  check(config.damping());
}

}  // namespace llmpress
