// Weight types and the presets of `scheme`, which carry the names and meanings
// of compressed-tensors' presets where it has them.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "quantizers/quantize_config.h"

namespace llmpress {

struct SchemePreset {
  std::string_view name;
  WeightScheme weights;
  ActivationQuant input;
};
std::span<const SchemePreset> scheme_presets();
const SchemePreset* find_scheme(std::string_view name);  // null if unknown

// One row a word of `weights: {type: ...}`.
struct WeightTypeFacts {
  std::string_view name;
  WeightScheme defaults;  // of a weight whose type alone is given
};
std::span<const WeightTypeFacts> weight_types();
const WeightTypeFacts& facts_of(const WeightScheme& scheme);

}  // namespace llmpress
