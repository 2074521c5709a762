#include "pruning/prune_config.h"

#include <cmath>
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

bool removes_single_weights(PruneMethod method) {
  return method == PruneMethod::kMagnitude || method == PruneMethod::kWanda ||
         method == PruneMethod::kSparseGpt;
}

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
  if (config.allocation == SparsityAllocation::kOwl) check_owl(config);
  check(config.damping());
}

}  // namespace llmpress
