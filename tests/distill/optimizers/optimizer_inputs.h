// Numbers that torch was given, too.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "compress/core/rng.h"

namespace llmpress::testing {

// scale sin(phase + 0.7 i)
inline std::vector<float> wave(std::size_t n, double phase, double scale) {
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(scale *
                              std::sin(phase + 0.7 * static_cast<double>(i)));
  }
  return x;
}

inline std::vector<float> noise(std::size_t n, Rng& rng) {
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>(rng.normal());
  return x;
}

}  // namespace llmpress::testing
