#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>

#include "compress/core/error.h"
#include "compress/pipeline/adapter_merge.h"
#include "compress/pipeline/model_copy.h"
#include "compress/pipeline/model_source.h"
#include "compress/tool/commands.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct MergeArguments {
  SessionOptions session{};
  std::filesystem::path base{}, output{};
  std::vector<std::filesystem::path> adapters{};
  std::vector<double> scales{};
  std::optional<DType> dtype{};
  CombineConfig combine{};
};

std::vector<WeightedAdapter> weighted(const MergeArguments& arguments) {
  const std::size_t n = arguments.adapters.size();
  if (arguments.scales.size() > 1 && arguments.scales.size() != n) {
    throw Error(ErrorCode::kInvalidArgument,
                "--scale is given " + std::to_string(arguments.scales.size()) +
                    " times for " + std::to_string(n) +
                    " adapters; give one for all or one each");
  }
  std::vector<WeightedAdapter> adapters;
  for (std::size_t i = 0; i < n; ++i) {
    const double weight = arguments.scales.empty()       ? 1.0
                          : arguments.scales.size() == 1 ? arguments.scales[0]
                                                         : arguments.scales[i];
    adapters.push_back({arguments.adapters[i], weight});
  }
  return adapters;
}

void merge(const MergeArguments& arguments) {
  Session session(arguments.session);
  const auto base = open_checkpoint(arguments.base);
  const Architecture arch =
      parse_architecture(base->config_json(), arguments.base.string());
  check_model(*base, arch);
  AdapterMerge merged = merge_adapters(*base, arch, weighted(arguments),
                                       arguments.combine, session.pool());
  const std::size_t modules = merged.merged.size();
  const auto checkpoint = overlay(*base, std::move(merged.edits));
  copy_model(*checkpoint, {.output = arguments.output,
                           .dtype = arguments.dtype,
                           .progress = session.progress()});
  std::printf("merged %zu modules into %s\n", modules,
              arguments.output.c_str());
}

}  // namespace

void add_merge_command(CLI::App& app) {
  static const std::map<std::string, DType> kDTypes{
      {"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}};
  static const std::map<std::string, CombineMethod> kMethods{
      {"linear", CombineMethod::kLinear},
      {"ties", CombineMethod::kTies},
      {"dare_linear", CombineMethod::kDareLinear},
      {"dare_ties", CombineMethod::kDareTies}};
  auto arguments = std::make_shared<MergeArguments>();
  CLI::App* command =
      app.add_subcommand("merge", "merge LoRA adapters into a base model");
  command->add_option("base", arguments->base, "the base model")->required();
  command->add_option("adapters", arguments->adapters, "PEFT adapter folders")
      ->required();
  command->add_option("--output", arguments->output, "where to write")
      ->required();
  command
      ->add_option(
          "--scale", arguments->scales,
          "weight of the adapters: one for all or one each; -1 takes a "
          "merged adapter out again")
      ->take_all()
      ->allow_extra_args(false);
  command
      ->add_option("--dtype", arguments->dtype,
                   "type of the result: f32, bf16, f16 (default: the base's)")
      ->transform(CLI::CheckedTransformer(kDTypes));
  command
      ->add_option("--combine", arguments->combine.method,
                   "of several adapters: linear, ties, dare_linear, dare_ties")
      ->transform(CLI::CheckedTransformer(kMethods))
      ->default_str("linear");
  command
      ->add_option("--density", arguments->combine.density,
                   "kept by ties and dare")
      ->capture_default_str();
  command->add_option("--seed", arguments->combine.seed, "of dare")
      ->capture_default_str();
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress merge ./my-model ./my-adapter --output ./merged "
      "--dtype bf16");
  command->callback([arguments] { merge(*arguments); });
}

}  // namespace llmpress
