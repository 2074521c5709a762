#include "distill/optimizers/sgd.h"

#include <cassert>
#include <cstddef>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = 65536;

struct Scalars {
  float learning_rate, weight_decay, gradient_factor, momentum;
  bool nesterov;
};

void update(const Scalars& s, std::size_t n, const float* __restrict gradient,
            float* __restrict w) {
  for (std::size_t i = 0; i < n; ++i) {
    const float d = gradient[i] * s.gradient_factor + s.weight_decay * w[i];
    w[i] -= s.learning_rate * d;
  }
}

void update_with_momentum(const Scalars& s, std::size_t n,
                          const float* __restrict gradient, float* __restrict b,
                          float* __restrict w) {
  for (std::size_t i = 0; i < n; ++i) {
    const float d = gradient[i] * s.gradient_factor + s.weight_decay * w[i];
    b[i] = s.momentum * b[i] + d;
    w[i] -= s.learning_rate * (s.nesterov ? d + s.momentum * b[i] : b[i]);
  }
}

}  // namespace

void sgd_step(const SgdConfig& config, float learning_rate, float weight_decay,
              float gradient_factor, std::span<const float> gradient,
              std::span<float> weight, SgdState& state, ThreadPool& pool) {
  assert(gradient.size() == weight.size());
  const bool moving = config.momentum != 0;
  if (moving && state.momentum.empty()) state.momentum.resize(weight.size());
  if (state.momentum.size() != (moving ? weight.size() : 0)) {
    fail(ErrorCode::kInvalidInput,
         "SGD: momentum of {} elements for a weight of {}",
         state.momentum.size(), weight.size());
  }
  const Scalars s{learning_rate, weight_decay, gradient_factor,
                  static_cast<float>(config.momentum), config.nesterov};
  pool.for_ranges(weight.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    const float* const g = gradient.data() + begin;
                    float* const w = weight.data() + begin;
                    if (!moving) return update(s, end - begin, g, w);
                    update_with_momentum(s, end - begin, g,
                                         state.momentum.data() + begin, w);
                  });
}

}  // namespace llmpress
