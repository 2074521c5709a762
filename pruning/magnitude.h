// Magnitude pruning: the smallest weights go, whatever they are multiplied with
// (Han et al. 2015, arXiv:1506.02626; Zhu and Gupta 2017, arXiv:1710.01878).
// One threshold for the whole Linear, or per `of` inputs of a row with a
// pattern. The weakest method and the only one without calibration.
//
// Cost: four passes over W.
#pragma once

#include "pruning/method.h"

namespace llmpress {

PruneResult prune_magnitude(const PruneRequest& request);

}  // namespace llmpress
