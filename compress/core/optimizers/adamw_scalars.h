// What all elements of a step of AdamW share.
#pragma once

#include <cmath>
#include <cstddef>

#include "compress/core/optimizers/adamw.h"

namespace llmpress {

struct AdamWScalars {
  float gradient_factor, decay, less_beta1, beta2, less_beta2;
  float step_size, root_correction, epsilon;

  AdamWScalars(const AdamWConfig& c, std::size_t step, float learning_rate,
               float weight_decay, float factor)
      : gradient_factor(factor),
        decay(static_cast<float>(1 -
                                 double{learning_rate} * double{weight_decay})),
        less_beta1(static_cast<float>(1 - c.beta1)),
        beta2(static_cast<float>(c.beta2)),
        less_beta2(static_cast<float>(1 - c.beta2)),
        step_size(static_cast<float>(
            double{learning_rate} /
            (1 - std::pow(c.beta1, static_cast<double>(step))))),
        root_correction(static_cast<float>(
            std::sqrt(1 - std::pow(c.beta2, static_cast<double>(step))))),
        epsilon(static_cast<float>(c.epsilon)) {}

  // One element: moves m, v and w.
  void update(float gradient, float& m, float& v, float& w) const {
    const float g = gradient * gradient_factor;
    m += less_beta1 * (g - m);
    v = beta2 * v + less_beta2 * g * g;
    w = w * decay -
        step_size * (m / (std::sqrt(v) / root_correction + epsilon));
  }
};

}  // namespace llmpress
