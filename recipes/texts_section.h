// The texts of a stage that trains: one, or several domains.
#pragma once

#include <filesystem>
#include <string_view>

#include "recipes/recipe.h"
#include "recipes/section.h"
#include "recipes/yaml_writer.h"

namespace llmpress {

// Absolute; empty without the key.
std::filesystem::path path_at(const Section& section, std::string_view key,
                              const std::filesystem::path& folder);

// `text` and `held_out`.
void read_text(const Section& section, const std::filesystem::path& folder,
               TrainStage& stage);
// These, or `domains` and `domain_rate`.
void read_texts(const Section& section, const std::filesystem::path& folder,
                TrainStage& stage);
void write_texts(YamlWriter& out, const TrainStage& stage);

}  // namespace llmpress
