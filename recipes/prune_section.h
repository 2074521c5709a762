// The section `prune`.
#pragma once

#include "recipes/recipe.h"
#include "recipes/yaml_tree.h"

namespace llmpress {

PruneStage read_prune(const YamlNode& node);

}  // namespace llmpress
