#include "compress/tool/adapter_arguments.h"

#include <CLI/CLI.hpp>
#include <cmath>

#include "compress/core/formatted.h"

namespace llmpress {

void add_adapter_arguments(CLI::App& command, AdapterArguments& arguments) {
  command.add_option("adapters", arguments.paths, "PEFT adapter folders")
      ->required();
  command
      .add_option("--scale", arguments.scales,
                  "weight of the adapters: one for all or one each (default: "
                  "1)")
      ->take_all()
      ->allow_extra_args(false);
}

void add_beside_options(CLI::App& command, AdapterArguments& arguments) {
  arguments.scale_option = "--adapter-scale";
  command
      .add_option("--adapter", arguments.paths,
                  "PEFT adapter to run beside the model, unmerged; may stand "
                  "several times")
      ->take_all()
      ->allow_extra_args(false);
  command
      .add_option("--adapter-scale", arguments.scales,
                  "weight of the adapters: one for all or one each (default: "
                  "1)")
      ->take_all()
      ->allow_extra_args(false);
}

void add_inputs(const AdapterArguments& arguments,
                std::vector<InputPath>& inputs) {
  for (const std::filesystem::path& path : arguments.paths) {
    inputs.push_back({"the adapter", path});
  }
}

std::vector<WeightedAdapter> weighted(const AdapterArguments& arguments) {
  const std::size_t n = arguments.paths.size();
  const std::vector<double>& scales = arguments.scales;
  if (scales.size() > 1 && scales.size() != n) {
    fail(ErrorCode::kInvalidArgument,
         "{} is given {} times for {} adapters; give one for all or one each",
         arguments.scale_option, scales.size(), n);
  }
  if (n == 0 && !scales.empty()) {
    fail(ErrorCode::kInvalidArgument, "{} is given without an adapter",
         arguments.scale_option);
  }
  for (const double scale : scales) {
    if (std::isfinite(scale)) continue;
    fail(ErrorCode::kInvalidArgument, "{}: wanted a finite number",
         arguments.scale_option);
  }
  std::vector<WeightedAdapter> adapters;
  for (std::size_t i = 0; i < n; ++i) {
    const double weight = scales.empty()       ? 1.0
                          : scales.size() == 1 ? scales[0]
                                               : scales[i];
    adapters.push_back({arguments.paths[i], weight});
  }
  return adapters;
}

}  // namespace llmpress
