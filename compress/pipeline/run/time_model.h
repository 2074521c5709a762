// How long compressing a model takes, before it runs: operations counted from
// the shapes, at the speed that float32 products have on this machine now.
#pragma once

#include <cstddef>

#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/model/architecture.h"

namespace llmpress {

// Work of a plan, apart by what it costs.
struct RunWork {
  double products = 0;  // float operations of matrix products
  double weights = 0;   // rounded one by one
  double bytes = 0;     // read and written
};

// `tokens`: of calibration, if the plan uses any. Searching methods count with
// their forward passes; training does not count.
RunWork work_of(const StagePlan& plan, const Architecture& arch,
                std::size_t tokens, std::size_t model_bytes,
                std::size_t output_bytes);

// Operations a second of products on all threads of the pool, by one of 8 GFLOP.
double product_rate(ThreadPool& pool);

double seconds_of(const RunWork& work, double product_rate,
                  std::size_t threads);

}  // namespace llmpress
