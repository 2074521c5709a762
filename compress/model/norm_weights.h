#pragma once

#include <vector>

namespace llmpress {

// Of a norm as they are stored.
struct NormWeights {
  std::vector<float> gain{}, bias{};  // bias empty for RMS norms
  // Added to every stored gain: 1 in Gemma's norms, which store gain - 1.
  float offset = 0;
};

// A stored gain that multiplies by `factor` more.
inline float scaled_gain(float gain, float offset, double factor) {
  const double multiplies =
      static_cast<double>(gain) + static_cast<double>(offset);
  return static_cast<float>(multiplies * factor - static_cast<double>(offset));
}

}  // namespace llmpress
