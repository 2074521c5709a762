#pragma once

#include <algorithm>
#include <cmath>

namespace llmpress {

// Whether an expert of logit z counts beside the chosen one, of logit `best`
// (RouteScore::kSparseMixer): whether it is within 2 jitter of it, as a part of
// the larger magnitude.
inline bool is_rival(float z, float best, float jitter) {
  const float factor = std::max(std::abs(z), best);
  return !((best - z) / factor > 2 * jitter);
}

}  // namespace llmpress
