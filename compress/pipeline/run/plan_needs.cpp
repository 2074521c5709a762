#include "compress/pipeline/run/plan_needs.h"

#include <algorithm>

#include "compress/pipeline/run/auto_precision.h"
#include "compress/pipeline/run/block_rounding.h"
#include "compress/pipeline/run/end_compressor.h"
#include "compress/pipeline/run/linear_compressor.h"
#include "compress/pipeline/run/sparsity_allocation.h"
#include "quantizers/method.h"

namespace llmpress {

StatsNeeds needs_of_plan(const StagePlan& plan, const Architecture& arch) {
  StatsNeeds needs = needs_of_ends(plan, arch);
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      needs = needs | needs_of(treatment_of(plan, arch, layer, l));
    }
  }
  return needs;
}

bool wants_reference(const StagePlan& plan, const Architecture& arch) {
  return needs_of_plan(plan, arch).reference_moment ||
         wants_block_rounding(plan, arch);
}

CalibrationUse calibration_use_of_blocks(const StagePlan& plan,
                                         const Architecture& arch) {
  if (any(needs_of_plan(plan, arch)) || wants_auto_precision(plan) ||
      wants_sparsity_allocation(plan) || !plan.smoothing().empty() ||
      plan.kv_cache() != nullptr) {
    return CalibrationUse::kNeeded;
  }
  const bool counts_outliers =
      std::ranges::any_of(plan.quantizing(), [](const QuantizeStage* stage) {
        return method_of(stage->config).outlier_threshold != nullptr;
      });
  return counts_outliers ? CalibrationUse::kReport : CalibrationUse::kNone;
}

CalibrationUse calibration_use(const StagePlan& plan,
                               const Architecture& arch) {
  const CalibrationUse use = calibration_use_of_blocks(plan, arch);
  bool reduced = false;
  for (const Stage* stage : plan.transforms()) {
    const auto* prune = std::get_if<PruneStage>(stage);
    if (prune == nullptr) continue;
    if (needs_calibration(prune->config)) {
      return CalibrationUse::kNeeded;
    }
    reduced = true;  // measures what it did if there is calibration
  }
  return use == CalibrationUse::kNone && reduced ? CalibrationUse::kReport
                                                 : use;
}

}  // namespace llmpress
