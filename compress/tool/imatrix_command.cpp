#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "compress/model/model_source.h"
#include "compress/pipeline/run/measured_importance.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/session.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/gguf/imatrix.h"

namespace llmpress {
namespace {

struct ImatrixArguments {
  SessionOptions session{};
  std::filesystem::path model{}, output{};
  CalibrationConfig calibration{.sequence_length = 512,
                                .sampling = Sampling::kSequential};
};

void write_imatrix(const ImatrixArguments& arguments) {
  const ImatrixForm form = imatrix_form_of(arguments.output);
  Session session(arguments.session);
  const OutputGuard guard(
      {{"the model", arguments.model},
       {"the calibration text", arguments.calibration.text}},
      {{"the output", arguments.output, OutputKind::kImatrix}});
  log_notes(guard, session);
  const ModelSource model = open_model(arguments.model);
  for (const std::string& note : model.checkpoint->notes()) session.log(note);
  const CalibrationSet set =
      load_calibration(arguments.calibration, *model.tokenizer);
  for (const std::string& note : set.notes) session.log(note);
  Imatrix imatrix = measure_importance({.model = &model,
                                        .calibration = &set,
                                        .isa = session.isa(),
                                        .pool = &session.pool(),
                                        .progress = session.progress()});
  imatrix.datasets = {arguments.calibration.text.filename().string()};
  write_file_atomically(arguments.output, imatrix_octets(imatrix, form));
  print("wrote %s: %zu matrices, %zu tokens\n", arguments.output.c_str(),
        imatrix.entries.size(), set.tokens());
}

}  // namespace

void add_imatrix_command(CLI::App& app) {
  static const std::map<std::string, Sampling> kSamplings{
      {"random", Sampling::kRandom}, {"sequential", Sampling::kSequential}};
  auto arguments = std::make_shared<ImatrixArguments>();
  CalibrationConfig& calibration = arguments->calibration;
  CLI::App* command = app.add_subcommand(
      "imatrix", "an importance matrix, which llama-quantize takes too");
  command->add_option("model", arguments->model, "the model")->required();
  command->add_option("--text", calibration.text, "text to measure on")
      ->required();
  command
      ->add_option("--output", arguments->output,
                   "file to write: .gguf, or .dat for llama.cpp's old form")
      ->required();
  command->add_option("--samples", calibration.samples, "windows of the text")
      ->check(whole_number(1))
      ->capture_default_str();
  command
      ->add_option("--sequence-length", calibration.sequence_length,
                   "tokens of a window")
      ->check(whole_number(1))
      ->capture_default_str();
  command
      ->add_option("--sampling", calibration.sampling,
                   "sequential (the first windows) or random")
      ->transform(CLI::CheckedTransformer(kSamplings))
      ->default_str("sequential");
  command->add_option("--seed", calibration.seed, "of random windows")
      ->check(any_seed())
      ->capture_default_str();
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress imatrix ./my-model --text calibration.txt --output "
      "imatrix.gguf");
  command->callback([arguments] { write_imatrix(*arguments); });
}

}  // namespace llmpress
