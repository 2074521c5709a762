#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "compress/core/formatted.h"
#include "compress/pipeline/benchmark/synthetic_model.h"
#include "compress/tool/commands.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct SynthArguments {
  SessionOptions session{};
  SyntheticModelJob job{};
  std::size_t layers = 0, vocabulary = 0;
};

void synthesize(SynthArguments& arguments) {
  Session session(arguments.session);
  if (arguments.layers != 0) arguments.job.layers = arguments.layers;
  if (arguments.vocabulary != 0) {
    arguments.job.vocabulary = arguments.vocabulary;
  }
  (void)find_shape(arguments.job.like);
  const OutputGuard guard(
      {}, {{"the output", arguments.job.output, OutputKind::kFolder}});
  log_notes(guard, session);
  write_synthetic_model(arguments.job, session.pool());
  session.log(formatted("wrote {}", arguments.job.output));
}

}  // namespace

void add_synth_command(CLI::App& app) {
  static const std::map<std::string, DType> kDTypes{
      {"bf16", DType::kBF16}, {"f16", DType::kF16}, {"f32", DType::kF32}};
  auto arguments = std::make_shared<SynthArguments>();
  SyntheticModelJob& job = arguments->job;
  CLI::App* command = app.add_subcommand(
      "synth", "a checkpoint of random weights in a well-known shape");
  std::string shapes;
  for (const ModelShape& shape : model_shapes()) {
    shapes += (shapes.empty() ? "" : ", ") + std::string(shape.name);
  }
  command->add_option("--like", job.like, shapes)->required();
  command->add_option("--output", job.output, "the folder to write")
      ->required();
  command
      ->add_option("--layers", arguments->layers,
                   "so many blocks (0: as the shape has)")
      ->check(whole_number(0, 10'000));
  command
      ->add_option("--vocabulary", arguments->vocabulary,
                   "so many tokens, 256 at least (0: as the shape has)")
      ->check(whole_number(0, 10'000'000));
  command->add_option("--dtype", job.dtype, "bf16, f16 or f32")
      ->transform(CLI::CheckedTransformer(kDTypes))
      ->default_str("bf16");
  command->add_option("--seed", job.seed)
      ->check(any_seed())
      ->capture_default_str();
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress synth --like llama-1.1b --output ./random-1.1b");
  command->callback([arguments] { synthesize(*arguments); });
}

}  // namespace llmpress
