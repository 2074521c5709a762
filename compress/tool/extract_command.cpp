#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "compress/core/error.h"
#include "compress/model/model_check.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_extract.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct ExtractArguments {
  SessionOptions session{};
  std::filesystem::path base{}, tuned{}, json{};
  AdapterExtractOptions options{};
  std::size_t rank = 0;
  double energy = 0;  // 0: not given
};

ExtractConfig config_of(const ExtractArguments& arguments) {
  ExtractConfig config = arguments.options.config;
  if (arguments.rank == 0 && arguments.energy == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "extract wants --rank, --energy or both");
  }
  config.rank = arguments.rank;
  config.energy = arguments.energy == 0 ? 1 : arguments.energy;
  if (config.rank == 0 && config.energy == 1) config.energy = 1 - 1e-9;
  check(config);
  return config;
}

void print_report(const ExtractReport& report) {
  print("%-48s %14s %5s %12s %9s\n", "Linear", "out x in", "rank", "|dW| / |W|",
        "captured");
  for (const ExtractedLayer& l : report.layers) {
    print("%-48s %6zu x %-6zu %4zu %12.3e %8.2f%%\n", l.name.c_str(), l.out,
          l.in, l.rank, l.relative_change, 100 * l.captured_energy);
  }
  print("captured of all changes of Linears: %.2f%%\n",
        100 * report.captured_energy);
  for (const std::string& name : report.saved) {
    print("saved whole: %s\n", name.c_str());
  }
  for (const std::string& name : report.left_out) {
    print("changed, but not in the adapter: %s\n", name.c_str());
  }
}

void extract(const ExtractArguments& arguments) {
  AdapterExtractOptions options = arguments.options;
  options.config = config_of(arguments);
  Session session(arguments.session);
  const OutputGuard guard(
      {{"the base", arguments.base}, {"the tuned model", arguments.tuned}},
      {{"the output", options.output}, json_output(arguments.json)});
  log_notes(guard, session);
  options.progress = session.progress();
  const auto base = open_checkpoint(arguments.base);
  const auto tuned = open_checkpoint(arguments.tuned);
  const Architecture arch = read_architecture(*base);
  check_model(*base, arch);
  check_model(*tuned, arch);
  for (const std::string& note : base->notes()) session.log(note);
  for (const std::string& note : tuned->notes()) session.log(note);
  const ExtractReport report =
      extract_adapter(*base, *tuned, arch, options, session.pool());
  if (arguments.json != "-") {
    print_report(report);
    print("wrote %s\n", options.output.c_str());
  }
  if (!arguments.json.empty()) write_json(to_json(report), arguments.json);
}

}  // namespace

void add_extract_command(CLI::App& app) {
  static const std::map<std::string, DType> kDTypes{
      {"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}};
  auto arguments = std::make_shared<ExtractArguments>();
  CLI::App* command = app.add_subcommand(
      "extract", "a LoRA adapter from a base model and a tuned one");
  command->add_option("base", arguments->base, "the base model")->required();
  command->add_option("tuned", arguments->tuned, "the tuned model")->required();
  command
      ->add_option("--output", arguments->options.output,
                   "adapter folder to write")
      ->required();
  command->add_option("--rank", arguments->rank, "rank of a Linear, at most")
      ->check(whole_number(1));
  command
      ->add_option("--energy", arguments->energy,
                   "smallest rank that keeps this part of a change's squared "
                   "norm, above 0, at most 1")
      ->check(real_number(1e-9, 1));
  command
      ->add_option("--dtype", arguments->options.dtype,
                   "type of the adapter: f32, bf16, f16")
      ->transform(CLI::CheckedTransformer(kDTypes))
      ->default_str("f32");
  command->add_flag("--save-others", arguments->options.save_others,
                    "keep changed embeddings, heads, norms and biases whole");
  command
      ->add_option("--seed", arguments->options.config.seed,
                   "of the randomized decomposition of large Linears")
      ->check(any_seed())
      ->capture_default_str();
  command->add_option("--json", arguments->json,
                      "write the report as JSON to this file (-: stdout)");
  add_session_options(*command, arguments->session);
  command->footer(
      "Examples:\n  llmpress extract ./my-model ./my-tuned-model --output "
      "./my-adapter --rank 16\n  llmpress extract ./my-model ./my-tuned-model "
      "--output ./my-adapter --energy 0.95 --rank 64");
  command->callback([arguments] { extract(*arguments); });
}

}  // namespace llmpress
