// The stages that train.
#pragma once

#include <filesystem>

#include "recipes/recipe.h"
#include "recipes/yaml_tree.h"
#include "recipes/yaml_writer.h"

namespace llmpress {

TrainStage read_train(const YamlNode& node,
                      const std::filesystem::path& folder);
DistillStage read_distill(const YamlNode& node,
                          const std::filesystem::path& folder);

TuneStage read_tune(const YamlNode& node, const std::filesystem::path& folder);

void write_body(YamlWriter& out, const TrainStage& stage);
void write_body(YamlWriter& out, const DistillStage& stage);
void write_body(YamlWriter& out, const TuneStage& stage);

}  // namespace llmpress
