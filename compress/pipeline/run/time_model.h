// How long compressing a model takes on one machine or on several, before it
// runs: operations counted from the shapes, at the speed that float32 products
// have on this machine now.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/run/kept_inputs.h"
#include "compress/pipeline/run/rank_plan.h"

namespace llmpress {

// Work of a plan, apart by what it costs and how it can be spread.
struct RunWork {
  double passes = 0;    // float operations of products over calibration tokens
  double searches = 0;  // of scales, on the same sample everywhere
  std::vector<SolveWork> solves{};
  double weights = 0;      // rounded one by one
  double read = 0;         // bytes
  double written = 0;      // bytes of the artifact, read back and compared
  std::size_t shards = 1;  // of it
  double moments = 0;      // bytes of a batch's second moments, as they travel
  double packed = 0;       // bytes of packed Linears, written with their blocks
  std::size_t batches = 0;  // of calibration tokens
  std::size_t blocks = 0;
};

// `tokens`: of calibration, if the plan uses any, in sequences of
// `sequence_tokens`, of whose states a rank keeps `kept`; `packed_bytes`: of the
// blocks' Linears among those of the output. Searching methods count with their
// forward passes; training does not count.
RunWork work_of(const StagePlan& plan, const Architecture& arch,
                std::size_t tokens, std::size_t sequence_tokens,
                std::size_t model_bytes, std::size_t output_bytes,
                std::size_t packed_bytes, const KeptInputs& kept);

// One of so many that are alike.
struct Machine {
  double products = 0;  // float operations a second, on all its threads
  double threads = 1;
  double disk = 7e8;        // bytes a second read, hashed, written and compared
  double network = 1.25e9;  // bytes a second in each direction
};

// Operations a second of products on all threads of the pool.
double product_rate(ThreadPool& pool);

struct SpreadCost {
  double seconds = 0;
  double traffic = 0;  // bytes that a rank sends
};

// Of one rank on each of `ranks` machines.
SpreadCost cost_on(const RunWork& work, const Machine& machine,
                   std::size_t ranks);

}  // namespace llmpress
