// One Linear through the stages that select it: prune, then quantize.
#pragma once

#include <string>

#include "compress/calibration/dense_block.h"
#include "compress/calibration/stage_plan.h"
#include "compress/core/damping.h"
#include "compress/core/input_stats.h"
#include "compress/core/packed/row_source.h"
#include "compress/core/parallel.h"
#include "compress/pipeline/reports/run_report.h"
#include "compress/pipeline/run/importance_files.h"

namespace llmpress {

// What the treatment's methods ask of calibration.
StatsNeeds needs_of(const LinearTreatment& treatment);

// Whether ranks can compress a Linear together, each some of its rows
// (SharedInverse::ranks()); else each of them does the same.
bool shares_rows(const LinearTreatment& treatment);

// Whether `storage: sparse` can leave its zeros out.
bool has_sparse_form(const PackedWeight& weight);

struct LinearOutcome {
  LinearWeights weights{};
  LayerReport report{};
};

struct LinearJob {
  std::string name{};  // in full
  const DenseLinear* linear = nullptr;
  LinearTreatment treatment{};
  const InputStats* stats = nullptr;  // may be null when needs_of() is empty
  // Where stages name files of what calibration would find.
  const ImportanceFiles* importance = nullptr;
  double sparsity = 0;  // that pruning aims for, if it prunes
  // What it learned together with its block (block_rounding.h), or null.
  const GroupedIntWeight* learned = nullptr;
  // For jobs with the same stats; null: not shared. With several ranks all of
  // them do the job.
  SharedInverse* inverse = nullptr;
};

// Throws Error(kNumeric) naming the Linear when a method fails.
LinearOutcome compress_linear(const LinearJob& job, ThreadPool& pool);

// Whether a Linear of so many inputs can be compressed some rows at a time: it is
// rounded to nearest and no more. `stats` may be null.
bool compresses_by_rows(const LinearTreatment& treatment, std::size_t in,
                        const InputStats* stats);
// The same outcome of one that can, without W in float32: job.linear is not read.
LinearOutcome compress_rows(const LinearJob& job, const LinearRows& linear,
                            ThreadPool& pool);

}  // namespace llmpress
