// Training that is aware of the rounding to come: which Linears learn on which
// grid.
#pragma once

#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/model/training/trainable_linear.h"

namespace llmpress {

// Everything that a `quantize` stage of `plan` selects, Linears of the blocks,
// embedding and head, on that stage's grid (grid_linear.h). A head that is tied
// to the embedding learns as one matrix with it. `pool` must outlive it.
LinearMaker grid_linears(const QuantizationAware& aware, const StagePlan& plan,
                         const Architecture& arch, ThreadPool& pool);

// Of the embedding and the head: how many weights do.
std::size_t grid_end_weights(const StagePlan& plan, const Architecture& arch);

// What can be known before training. Throws Error(kUnsupported) with the place
// of a `quantize` stage that it cannot be aware of: one that gives a tied head a
// weight of its own, rounds inputs to ranges found by calibration, or has scales
// that do not learn though they should.
void check_aware_training(const StagePlan& plan, const Architecture& arch,
                          ThreadPool& pool);
// The same of training behind `quantize`: packed scales that should learn.
void check_recovery(const StagePlan& plan, const Architecture& arch,
                    ThreadPool& pool);

}  // namespace llmpress
