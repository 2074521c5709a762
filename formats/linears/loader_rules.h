// What the programs that load an output format refuse or read wrongly: one
// table of rules. It is asked twice: before work, of the form that a Linear
// will have, and on writing, where a Linear that no loader takes goes into our
// own group format, which they refuse (docs/artifacts.md has the versions).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "compress/core/packed_weight.h"

namespace llmpress {

// Who reads a Linear that breaks a rule.
enum class Readers {
  kOnlyUs,  // no loader: it is written as ours
  kNotHf,   // vLLM does, transformers does not
};

// Experts in the model's class in transformers.
enum class ExpertModules {
  kLinears,      // Linears of their own
  kStacked,      // stacks, put together on loading from those that are written
                 // one by one
  kStackedOnly,  // stacks that are read as stacks only
};

// What the model's class in transformers makes of a Linear.
struct ModuleFacts {
  bool transposed =
      false;  // Conv1D: [in, out], no Linear to compressed-tensors
  ExpertModules expert = ExpertModules::kLinears;
  bool weight_read_early = false;  // by the class's _init_weights()
};

struct LoaderRule {
  std::string_view name;  // "group-divides-inputs"
  Readers readers = Readers::kOnlyUs;
  bool (*broken)(std::string_view linear, const LinearWeights&,
                 const ModuleFacts&);
  std::string_view reason;  // what loaders do
  std::string_view remedy;  // what to write instead
};

// Of compressed-tensors folders; the first that is broken is the one to name.
std::span<const LoaderRule> loader_rules();

// nullptr: every loader takes it. Of rules broken, one that only we read goes
// first. `linear` is the module path.
const LoaderRule* broken_rule(std::string_view linear,
                              const LinearWeights& weights,
                              const ModuleFacts& module = {});

}  // namespace llmpress
