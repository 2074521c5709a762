// The adapter of a `tune` stage: which Linears get one, and what it learned.
#pragma once

#include <map>
#include <span>
#include <string>

#include "compress/model/architecture.h"
#include "compress/model/bottleneck.h"
#include "compress/model/training/lora_linear.h"
#include "compress/model/training/parameter.h"
#include "formats/adapters/peft_adapter.h"
#include "recipes/recipe.h"

namespace llmpress {

// By module path. Every Linear begins with random numbers of its own. Throws as
// selected_linears(), and Error(kInvalidArgument) with the stage's place if the
// rank is above a side of a Linear.
std::map<std::string, LoraConfig> adapters_of(const TuneStage& stage,
                                              const Architecture& arch);

// The parameters of the adapters as PEFT's modules.
std::map<std::string, PeftModule> learned_adapter(
    std::span<const Parameter> parameters, double scaling);

std::map<std::string, PeftModule> learned_bottlenecks(
    std::span<const Parameter> parameters, Activation activation);

// The `keep` largest numbers of all differences that are not under shut gates.
std::map<std::string, PeftModule> learned_differences(
    std::span<const Parameter> parameters, std::size_t keep);

}  // namespace llmpress
