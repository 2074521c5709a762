// The largest |x| of many numbers.
#pragma once

#include <span>

namespace llmpress {

// NaN is above infinity, which is above all others; 0 of none.
float largest_magnitude(std::span<const float> x);

bool all_finite(std::span<const float> x);

}  // namespace llmpress
