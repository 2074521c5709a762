// The sections `weights` and `input`: how weights and activations are rounded.
#pragma once

#include "quantizers/quantize_config.h"
#include "recipes/section.h"

namespace llmpress {

// `base` is what stands where the section is silent; another `type` than its
// own starts from that type's defaults.
WeightScheme read_weights(const YamlNode& node, const WeightScheme& base);

// `name` is "input" or "activations", as the recipe calls it.
ActivationQuant read_input(const YamlNode& node, const ActivationQuant& base);

}  // namespace llmpress
