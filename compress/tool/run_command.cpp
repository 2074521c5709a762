#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "compress/core/heap_reuse.h"
#include "compress/pipeline/run/run.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/resume_option.h"
#include "compress/tool/session.h"
#include "recipes/recipe_parser.h"

namespace llmpress {
namespace {

struct RunArguments {
  SessionOptions session{};
  std::filesystem::path recipe{};
  RecipeOverrides overrides{};
  MemoryOptions memory{};
  bool no_resume = false;
  std::size_t planned_ranks = 1;
  std::uint64_t planned_network = 1'250'000'000;
  std::filesystem::path json{};
};

void add_recipe_options(CLI::App& command, RunArguments& arguments) {
  command.add_option("recipe", arguments.recipe, "the recipe, a YAML file")
      ->required();
  command.add_option("--model", arguments.overrides.model,
                     "checkpoint to use instead of the recipe's");
  command.add_option("--output", arguments.overrides.output,
                     "where to write instead of the recipe's output.path");
  command
      .add_option("--set", arguments.overrides.set,
                  "override a key: --set stages.0.quantize.weights.bits=3")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->allow_extra_args(false);
  add_memory_options(command, arguments.memory);
  add_session_options(command, arguments.session);
}

void print_results(const RunReport& report) {
  print("%-20s %9s %8s %10s %22s %10s %8s %9s\n", "model", "bits/w", "bits/w",
        "size", "perplexity", "KL", "top-1", "tokens/s");
  print("%-20s %9s %8s\n", "", "(Linears)", "(all)");
  const auto row = [](const std::string& name, const ModelSize& size,
                      const std::optional<EvaluationResult>& e,
                      const std::optional<Divergence>& d) {
    print("%-20s %9.3f %8.3f %10s", name.c_str(), size.linear_bits_per_weight(),
          size.bits_per_weight(), human_bytes(size.weight_bytes).c_str());
    if (e) print(" %12.4f +- %6.4f", e->perplexity, e->perplexity_stderr);
    if (d) {
      print(" %10.6f %7.2f%%", d->kl_mean, 100 * d->top1_agreement);
    } else if (e) {
      print(" %10s %8s", "", "");
    }
    if (e) print(" %9.0f", e->tokens_per_second);
    print("\n");
  };
  row("base", report.base_size, report.base, std::nullopt);
  for (const VariantReport& v : report.variants) {
    row(v.name, v.size, v.evaluation, v.divergence);
  }
  for (const VariantReport& v : report.variants) {
    print("wrote %s\n", v.output.c_str());
  }
}

// The command line's --isa goes before the recipe's.
SessionOptions session_options(const RunArguments& arguments,
                               const Recipe& recipe) {
  SessionOptions options = arguments.session;
  if (options.isa.empty()) options.isa = recipe.isa;
  return options;
}

void run(const RunArguments& arguments) {
  const Ranks& ranks = arguments.session.ranks.ranks;
  const Recipe recipe = ranks.first_then_others(
      [&] { return load_recipe(arguments.recipe, arguments.overrides); });
  Session session(session_options(arguments, recipe));
  return_large_memory_at_once();
  const RunReport report = run_recipe(
      recipe,
      {.isa = session.isa(),
       .resume = !arguments.no_resume,
       .memory_limit = arguments.memory.limit,
       .scratch = arguments.memory.scratch,
       .json = json_output(arguments.json).path,
       .ranks = ranks,
       .progress = session.progress(),
       .log = [&session](const std::string& line) { session.log(line); }},
      session.pool());
  if (!ranks.is_first()) return;
  print_results(report);
  if (!arguments.json.empty()) write_json(to_json(report), arguments.json);
  if (recipe.report) {
    print("report %s\n", (*recipe.report / "report.html").c_str());
  }
}

void print_plan(const RunPlan& plan) {
  print("model %s\ncalibration tokens %zu\n", plan.model.c_str(),
        plan.calibration_tokens);
  for (const std::string& note : plan.notes) print("note: %s\n", note.c_str());
  for (const PlannedVariant& variant : plan.variants) {
    print("\n%s -> %s (%s)\n", variant.name.c_str(), variant.output.c_str(),
          variant.format.c_str());
    for (const std::string& note : variant.notes) {
      print("  note: %s\n", note.c_str());
    }
    for (const PlannedLayer& layer : variant.layers) {
      print("  %-44s %6zu x %-6zu %-8s -> %-22s %-10s %10s -> %s\n",
            layer.name.c_str(), layer.out, layer.in, layer.stored_as.c_str(),
            layer.becomes.c_str(), layer.method.c_str(),
            human_bytes(layer.bytes_before).c_str(),
            human_bytes(layer.bytes_after).c_str());
    }
    for (const std::string& warning : variant.warnings) {
      print("  warning: %s\n", warning.c_str());
    }
    print(
        "  output %s, peak memory about %s, disk at the peak %s, time "
        "about %.0f s",
        human_bytes(variant.output_bytes).c_str(),
        human_bytes(variant.peak_memory_bytes).c_str(),
        human_bytes(variant.disk_bytes).c_str(), variant.seconds);
    if (plan.ranks > 1) {
      print(", on each of %zu machines like this; each sends %s", plan.ranks,
            human_bytes(variant.traffic_bytes).c_str());
    }
    print("\n");
  }
}

void plan(const RunArguments& arguments) {
  const Recipe recipe = load_recipe(arguments.recipe, arguments.overrides);
  Session session(session_options(arguments, recipe));
  print_plan(plan_recipe(
      recipe,
      {.isa = session.isa(),
       .memory_limit = arguments.memory.limit,
       .scratch = arguments.memory.scratch,
       .planned_ranks = arguments.planned_ranks,
       .planned_network = static_cast<double>(arguments.planned_network)},
      session.pool()));
}

}  // namespace

void add_run_command(CLI::App& app, const CommandRanks& ranks) {
  auto arguments = std::make_shared<RunArguments>();
  arguments->session.ranks = ranks;
  CLI::App* command = app.add_subcommand(
      "run", "carry out a recipe: compress, write artifacts, evaluate, report");
  add_recipe_options(*command, *arguments);
  add_stall_limit(*command, arguments->session);
  add_no_resume_option(*command, arguments->no_resume);
  command->add_option("--json", arguments->json,
                      "also write the report as JSON to this file");
  command->footer(
      "Example:\n  llmpress run recipes/w4a16_gptq.yaml --model ./my-model "
      "--output ./my-model-w4\nExit codes: 0 done, 2 wrong usage or recipe, 3 "
      "bad "
      "input file, 4 the method failed,\n130 interrupted, 1 a bug.");
  command->callback([arguments] { run(*arguments); });
}

void add_plan_command(CLI::App& app) {
  auto arguments = std::make_shared<RunArguments>();
  CLI::App* command = app.add_subcommand(
      "plan", "say what a recipe would do to each Linear, and what it takes");
  add_recipe_options(*command, *arguments);
  command
      ->add_option("--ranks", arguments->planned_ranks,
                   "what it would take on so many machines like this one")
      ->check(whole_number(1));
  command
      ->add_option("--network", arguments->planned_network,
                   "bytes a second between them (default: 1.25GB, 10 Gbit)")
      ->transform(CLI::AsSizeValue(true))
      ->transform(CLI::Validator(positive_size(), "SIZE"));
  command->footer(
      "Example:\n  llmpress plan recipes/w4a16_gptq.yaml --model ./my-model");
  command->callback([arguments] { plan(*arguments); });
}

}  // namespace llmpress
