// The table of methods that set single weights of one Linear to zero. A new
// method: its file pair, its row in method.cpp, its facts in prune_config.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/damping.h"
#include "compress/core/input_stats.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "pruning/output_error.h"
#include "pruning/prune_config.h"

namespace llmpress {

struct PruneRequest {
  ConstMatrixView W{};                // [out, in]
  const InputStats* stats = nullptr;  // what the row's `needs` asked for
  const PruneConfig* config = nullptr;
  // Of this Linear, [0, 1): config->target_sparsity(), or what an allocation
  // gave its block. Not read where config has a pattern.
  double sparsity = 0.5;
  ThreadPool* pool = nullptr;
  std::string_view name{};  // of the Linear, for messages
  // For requests with the same stats; null: not shared. With several ranks all
  // of them make the request.
  SharedInverse* inverse = nullptr;
};

struct PruneResult {
  MatrixF W{};                  // [out, in], zero where the mask is 0
  Matrix<std::uint8_t> mask{};  // [out, in], 1: kept (even if it is zero)
  // Mean squared error of the output per token and output, and what is known of
  // the input that it was computed with: output_error.h.
  OutputError output_error{};
  double sparsity = 0;               // reached: zeros in the mask / (out * in)
  double damping_fraction = 0;       // that was needed; 0: no Hessian
  std::vector<std::string> notes{};  // whatever was changed, raised, skipped
};

struct WeightPruner {
  PruneMethod method;
  StatsNeeds (*needs)(const PruneConfig&);
  PruneResult (*prune)(const PruneRequest&);

  std::string_view name() const { return facts_of(method).name; }
};

std::span<const WeightPruner> weight_pruners();
// nullptr for a structured method.
const WeightPruner* find_weight_pruner(PruneMethod method);

// Checks the request (shapes, sparsity, finite weights, statistics there) and
// runs the method. Throws Error(kInvalidArgument), Error(kInvalidInput) for a
// weight that is not finite, Error(kNumeric) where the method fails.
PruneResult prune_weight(const PruneRequest& request);

// The result of a method that only zeroes: W where mask [out, in] is 1.
PruneResult apply_mask(const PruneRequest& request, Matrix<std::uint8_t> mask);

}  // namespace llmpress
