// Which Linears a stage touches, by compressed-tensors' rules for `targets` and
// `ignore`. An entry is
//   a class name       "Linear": every Linear of the blocks
//   a module name      "model.layers.3.mlp.up_proj", in full
//   a last name        "q_proj": every module whose name ends in ".q_proj"
//   a regular expression  "re:.*proj" of Python's, which must match from the
//                      first character and may end anywhere (re.match)
// A Linear is selected if some target matches and no ignore does. The
// embedding, the head and the routers of a mixture of experts are never
// selected by "Linear" or a regular expression: only by their full or last name
// ("lm_head").
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "compress/core/regex.h"

namespace llmpress {

struct LayerSelection {
  std::vector<std::string> targets{};  // empty: "Linear"
  std::vector<std::string> ignore{};

  bool operator==(const LayerSelection&) const = default;
};

enum class ModuleRole { kBlockLinear, kRouter, kEmbedding, kHead };

// A selection ready to be compared with names; its expressions are compiled
// once.
class LayerSelector {
 public:
  // `place` stands in front of messages. Throws Error(kInvalidArgument) for an
  // expression that is none.
  LayerSelector(const LayerSelection& selection, const std::string& place);

  // By full module name. Throws Error(kInvalidArgument) if an expression takes
  // too many steps.
  bool selects(std::string_view full_name,
               ModuleRole role = ModuleRole::kBlockLinear) const;

 private:
  using Entry = std::variant<std::string, Regex>;  // a name or class
  static std::vector<Entry> compiled(const std::vector<std::string>& entries,
                                     const std::string& place);
  static bool any_matches(const std::vector<Entry>& entries,
                          std::string_view full_name, bool by_class_or_pattern);

  std::vector<Entry> targets_{}, ignore_{};
};

}  // namespace llmpress
