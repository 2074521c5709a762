#include "compress/core/optimizers/adamw.h"

#include <cassert>

#include "compress/core/formatted.h"
#include "compress/core/optimizers/adamw_scalars.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = 65536;

void update(const AdamWScalars& s, std::size_t n,
            const float* __restrict gradient, float* __restrict m,
            float* __restrict v, float* __restrict w) {
  for (std::size_t i = 0; i < n; ++i) s.update(gradient[i], m[i], v[i], w[i]);
}

}  // namespace

void adamw_step(const AdamWConfig& config, std::size_t step,
                float learning_rate, float weight_decay, float gradient_factor,
                std::span<const float> gradient, std::span<float> weight,
                AdamWState& state, ThreadPool& pool) {
  assert(step > 0 && gradient.size() == weight.size());
  std::vector<float>&m = state.first_moment, &v = state.second_moment;
  if (m.empty() && v.empty()) {
    m.resize(weight.size());
    v.resize(weight.size());
  }
  if (m.size() != weight.size() || v.size() != weight.size()) {
    fail(ErrorCode::kInvalidInput,
         "AdamW: moments of {} and {} elements for a weight of {}", m.size(),
         v.size(), weight.size());
  }
  const AdamWScalars scalars(config, step, learning_rate, weight_decay,
                             gradient_factor);
  pool.for_ranges(
      weight.size(), kElementsPerTask, [&](std::size_t begin, std::size_t end) {
        update(scalars, end - begin, gradient.data() + begin, m.data() + begin,
               v.data() + begin, weight.data() + begin);
      });
}

}  // namespace llmpress
