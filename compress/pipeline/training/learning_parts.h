// Which tensors a stage lets learn, by the parts that it names.
#pragma once

#include <span>

#include "compress/model/architecture.h"
#include "compress/model/training/trainable_block.h"
#include "recipes/recipe.h"

namespace llmpress {

// Empty for no parts: everything learns.
LearningChoice parts_that_learn(std::span<const LearningPart> parts,
                                const Architecture& arch);

}  // namespace llmpress
