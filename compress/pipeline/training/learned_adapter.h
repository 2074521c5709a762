// The adapter of a `tune` stage: which Linears get one, and what it learned.
#pragma once

#include <map>
#include <span>
#include <string>

#include "compress/model/architecture.h"
#include "compress/model/training/lora_linear.h"
#include "compress/model/training/parameter.h"
#include "formats/adapters/peft_adapter.h"
#include "recipes/recipe.h"

namespace llmpress {

// By module path. Every Linear begins with random numbers of its own. Throws
// Error(kInvalidArgument) with the stage's place if it selects no Linear of the
// blocks or the rank is above a side of one; kUnsupported for embedding, head
// and experts that are stored as a stack, which no PEFT adapter of Linears
// names.
std::map<std::string, LoraConfig> adapters_of(const TuneStage& stage,
                                              const Architecture& arch);

// The parameters of the adapters as PEFT's modules.
std::map<std::string, PeftModule> learned_adapter(
    std::span<const Parameter> parameters, double scaling);

}  // namespace llmpress
