// Keys that several sections share.
#pragma once

#include "quantizers/quantize_config.h"
#include "recipes/layer_selection.h"
#include "recipes/section.h"

namespace llmpress {

// `targets` and `ignore`; regular expressions are compiled to check them.
LayerSelection read_selection(const Section& section);

// The keys of method awq, in a section of their own or in `smooth`.
AwqConfig read_awq(const Section& section);
SmoothQuantConfig read_smoothquant(const Section& section);

}  // namespace llmpress
