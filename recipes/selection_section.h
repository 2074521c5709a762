// The keys that say which Linears a stage touches.
#pragma once

#include "recipes/layer_selection.h"
#include "recipes/section.h"

namespace llmpress {

// `targets` and `ignore`; regular expressions are compiled to check them.
LayerSelection read_selection(const Section& section);

}  // namespace llmpress
