// One Linear through the stages that select it: prune, then quantize.
#pragma once

#include <string>

#include "compress/core/input_stats.h"
#include "compress/core/parallel.h"
#include "compress/pipeline/dense_block.h"
#include "compress/pipeline/run_report.h"
#include "compress/pipeline/stage_plan.h"

namespace llmpress {

// What the treatment's methods ask of calibration.
StatsNeeds needs_of(const LinearTreatment& treatment);

struct LinearOutcome {
  LinearWeights weights{};
  LayerReport report{};
};

// `stats` may be null when needs_of() is empty. Throws Error(kNumeric) naming
// the Linear when a method fails.
LinearOutcome compress_linear(const std::string& name,
                              const DenseLinear& linear,
                              const LinearTreatment& treatment,
                              const InputStats* stats, ThreadPool& pool);

}  // namespace llmpress
