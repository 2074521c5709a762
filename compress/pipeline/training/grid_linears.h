// Training that is aware of the rounding to come: which Linears learn on which
// grid.
#pragma once

#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/model/training/trainable_linear.h"

namespace llmpress {

// Every Linear of the blocks that a `quantize` stage of `plan` selects, on that
// stage's grid (grid_linear.h). `pool` must outlive it.
LinearMaker grid_linears(const QuantizationAware& aware, const StagePlan& plan,
                         const Architecture& arch, ThreadPool& pool);

// What can be known before training. Throws Error(kUnsupported) with the place
// of a `quantize` stage that it cannot be aware of: one that selects embedding
// or head, rounds inputs to ranges found by calibration, or has scales that do
// not learn though they should.
void check_aware_training(const StagePlan& plan, const Architecture& arch,
                          ThreadPool& pool);
// The same of training behind `quantize`: packed scales that should learn.
void check_recovery(const StagePlan& plan, const Architecture& arch,
                    ThreadPool& pool);

}  // namespace llmpress
