#pragma once

#include <vector>

namespace llmpress {

// Of a norm as they are stored.
struct NormWeights {
  std::vector<float> gain{}, bias{};  // bias empty for RMS norms
  // Added to every stored gain: 1 in Gemma's norms, which store gain - 1.
  float offset = 0;
};

}  // namespace llmpress
