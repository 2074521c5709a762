// What every method does last: check what it made, measure it, note what a
// reader should know.
#pragma once

#include <functional>

#include "quantizers/method.h"

namespace llmpress {

// Fills in the input's grid, the output error and the notes about scales.
// Throws Error(kNumeric) if a scale is not finite. `known_error`, if >= 0, is
// taken instead of measuring the output error.
QuantizeResult finish_result(const QuantizeRequest& request,
                             PackedWeight weight, double known_error = -1);

// False if a scale had to be clamped to the largest f16, or is so far below its
// normal range (2^-18: a sixth of its bits are left) that rounding it changes
// the weights.
bool scales_fit(const PackedWeight& weight);

// What `quantize` makes with `config`, or, where f16 does not hold its scales, with
// scales in float32, which a note says.
QuantizeResult with_fitting_scales(
    const QuantizeConfig& config,
    const std::function<QuantizeResult(const QuantizeConfig&)>& quantize);

// The second moment that the request brought, or an empty view.
ConstMatrixView second_moment_of(const QuantizeRequest& request);

}  // namespace llmpress
