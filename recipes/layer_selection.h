// Which Linears a stage touches, by compressed-tensors' rules for `targets` and
// `ignore`. An entry is
//   a class name       "Linear": every Linear of the blocks
//   a module name      "model.layers.3.mlp.up_proj", in full
//   a last name        "q_proj": every module whose name ends in ".q_proj"
//   a regular expression  "re:.*proj", which must match from the first
//   character
//                      and may end anywhere (as Python's re.match)
// A Linear is selected if some target matches and no ignore does. The embedding
// and the head are never selected by "Linear" or a regular expression: only by
// their full or last name ("lm_head").
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

struct LayerSelection {
  std::vector<std::string> targets{};  // empty: "Linear"
  std::vector<std::string> ignore{};

  bool operator==(const LayerSelection&) const = default;
};

enum class ModuleRole { kBlockLinear, kEmbedding, kHead };

bool selects(const LayerSelection& selection, std::string_view full_name,
             ModuleRole role = ModuleRole::kBlockLinear);

// Throws Error(kInvalidArgument) with the reason if `pattern` (without "re:")
// is not a regular expression in ECMAScript syntax.
void check_pattern(const std::string& pattern);

}  // namespace llmpress
