// Adapters with their scales, as several subcommands take them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "compress/pipeline/adapters/adapter_set.h"
#include "formats/files/output_guard.h"

namespace CLI {
class App;
}

namespace llmpress {

struct AdapterArguments {
  std::vector<std::filesystem::path> paths{};
  std::vector<double> scales{};  // one for each, one for all, or none: 1
  std::string scale_option = "--scale";
};

// What may not be written over.
void add_inputs(const AdapterArguments& arguments,
                std::vector<InputPath>& inputs);

// Positional "adapters" and --scale.
void add_adapter_arguments(CLI::App& command, AdapterArguments& arguments);
// --adapter and --adapter-scale: kept beside the model at inference.
void add_beside_options(CLI::App& command, AdapterArguments& arguments);

// Throws Error(kInvalidArgument) if the scales are neither none, one nor one
// for each adapter.
std::vector<WeightedAdapter> weighted(const AdapterArguments& arguments);

}  // namespace llmpress
