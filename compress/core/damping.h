// Damping of a second moment H [n, n] before it is factored, shared by every
// method that inverts one (GPTQ, SparseGPT, healing).
//
//   H <- H + fraction * mean(diag H) * I
//
// What happens when the damped H still cannot be factored is the recipe's
// choice, and never silent: the fraction that was used is returned.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// What to do when the Hessian cannot be factored.
enum class DampingPolicy { kRaise, kFail };

struct DampingConfig {
  double fraction = 0.01;  // of mean(diag H)
  DampingPolicy policy = DampingPolicy::kRaise;
  double increment = 0.01;  // kRaise: added until `bound`
  double bound = 1.0;

  bool operator==(const DampingConfig&) const = default;
};

}  // namespace llmpress
