// One entry of `stages`.
#pragma once

#include <filesystem>

#include "recipes/recipe.h"
#include "recipes/yaml_tree.h"

namespace llmpress {

// Relative paths of the stage are relative to `folder`.
Stage read_stage(const YamlNode& node, const std::filesystem::path& folder);

QuantizeStage read_quantize(const YamlNode& node,
                            const std::filesystem::path& folder);

// Absolute and without "." and "..".
std::filesystem::path resolve_path(const std::filesystem::path& folder,
                                   const std::string& path);

// Whether the stage learns from calibration data.
bool needs_calibration(const Stage& stage);

}  // namespace llmpress
