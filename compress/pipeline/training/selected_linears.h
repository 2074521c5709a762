// The Linears that a `tune` stage selects.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "recipes/recipe.h"

namespace llmpress {

struct SelectedLinear {
  std::string name{};  // module path
  std::size_t layer = 0, linear = 0;
  std::size_t number = 0;  // among all Linears of the blocks
};

// In their order. Throws Error(kInvalidArgument) with the stage's place if it
// selects no Linear of the blocks; kUnsupported for embedding, head and experts
// that are stored as a stack, which no adapter of Linears names.
std::vector<SelectedLinear> selected_linears(const TuneStage& stage,
                                             const Architecture& arch);

// Those of them that add to the stream, where bottlenecks stand. Throws likewise,
// and kUnsupported for blocks that change the stream in other ways too.
std::vector<SelectedLinear> bottleneck_places(const TuneStage& stage,
                                              const Architecture& arch);

const LinearSpec& spec_of(const SelectedLinear& linear,
                          const Architecture& arch);

}  // namespace llmpress
