#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <optional>

#include "compress/core/formatted.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "compress/pipeline/adapters/adapter_requantize.h"
#include "compress/pipeline/adapters/merge_fingerprint.h"
#include "compress/tool/adapter_arguments.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/edited_copy.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/resume_option.h"
#include "compress/tool/session.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {
namespace {

struct MergeArguments {
  SessionOptions session{};
  std::filesystem::path base{}, json{};
  AdapterArguments adapters{};
  EditedCopyOptions copy{};
  std::string method = "cat";  // of `combine`
  CombineConfig combine{};
  // Quantized bases only:
  std::string format{};
  CalibrationConfig calibration{};
  EvaluateConfig evaluate{};
};

void merge_dense(const MergeArguments& arguments, const Checkpoint& base,
                 const Architecture& arch, Session& session) {
  if (!arguments.calibration.text.empty() || !arguments.evaluate.text.empty() ||
      !arguments.json.empty() || !arguments.format.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "{}: is not quantized; --calibration, --text, --json and --format are "
         "for merging into a quantized base. To merge and then quantize, write "
         "a recipe with both stages",
         arguments.base);
  }
  AdapterMerge merged = merge_adapters(base, arch, weighted(arguments.adapters),
                                       arguments.combine, session.pool());
  const std::size_t modules = merged.merged.size();
  for (const std::string& note : merged.notes) session.log(note);
  merged.edits.dtype = arguments.copy.dtype;  // one rounding, not two
  const auto checkpoint = overlay(base, std::move(merged.edits));
  write_edited_copy(
      *checkpoint, arguments.copy,
      merge_fingerprint("merge", arguments.base, weighted(arguments.adapters),
                        arguments.combine, arguments.copy.dtype),
      session);
  print("merged %zu modules into %s\n", modules, arguments.copy.output.c_str());
}

void print_report(const RequantizeReport& report) {
  const auto row = [](const MergedLayer& l) {
    print("%-44s %-22s %10.4g %7.3f %7.3f %9.3f\n", l.name.c_str(),
          l.format.c_str(), l.change_norm, l.kept, l.cosine, l.rounding);
  };
  print("%-44s %-22s %10s %7s %7s %9s\n", "Linear", "stored as", "|change|",
        "kept", "cosine", "rounding");
  for (const MergedLayer& layer : report.layers) row(layer);
  row(report.all);
  if (report.result) {
    print(
        "perplexity: base %.4f, with its change in float32 %.4f, as "
        "written %.4f\n",
        report.base_result->perplexity, report.exact_result->perplexity,
        report.result->perplexity);
    print("KL of what was written from the exact change: %.6f\n",
          report.divergence->kl_mean);
  }
  print("merged %zu modules into %s (%s, %s)\n", report.modules,
        report.output.c_str(), report.format.c_str(), report.method.c_str());
}

void merge_packed(const MergeArguments& arguments, Session& session) {
  if (arguments.copy.dtype) {
    fail(ErrorCode::kInvalidArgument,
         "{}: is quantized, and the result is stored as it is; --dtype is for "
         "dense bases",
         arguments.base);
  }
  RequantizeOptions options{
      .output = arguments.copy.output,
      .format = arguments.format,
      .adapters = weighted(arguments.adapters),
      .combine = arguments.combine,
      .isa = session.isa(),
      .resume = !arguments.copy.no_resume,
      .progress = session.progress(),
      .log = [&session](const std::string& line) { session.log(line); }};
  if (!arguments.calibration.text.empty()) {
    options.calibration = arguments.calibration;
  }
  if (!arguments.evaluate.text.empty()) options.evaluate = arguments.evaluate;
  const RequantizeReport report =
      merge_into_packed(open_model(arguments.base), options, session.pool());
  if (arguments.json != "-") print_report(report);
  if (!arguments.json.empty()) write_json(to_json(report), arguments.json);
}

std::vector<InputPath> inputs_of(const MergeArguments& arguments) {
  std::vector<InputPath> inputs{
      {"the base", arguments.base},
      {"the calibration text", arguments.calibration.text},
      {"the evaluation text", arguments.evaluate.text}};
  add_inputs(arguments.adapters, inputs);
  return inputs;
}

std::vector<OutputPath> outputs_of(const MergeArguments& arguments,
                                   const Checkpoint& base, bool packed) {
  const OutputPath unfinished = unfinished_output(arguments.copy.output);
  if (!packed) return {{"the output", arguments.copy.output}, unfinished};
  const std::string format = merged_format(base, arguments.format);
  return {{"the output", arguments.copy.output,
           kind_of(find_output_format(format))},
          unfinished,
          json_output(arguments.json)};
}

void merge(const MergeArguments& arguments) {
  Session session(arguments.session);
  const auto base = open_checkpoint(arguments.base);
  const Architecture arch = read_architecture(*base);
  const bool packed = is_packed(*base, arch);
  const OutputGuard guard(inputs_of(arguments),
                          outputs_of(arguments, *base, packed));
  log_notes(guard, session);
  check_model(*base, arch);
  for (const std::string& note : base->notes()) session.log(note);
  if (packed) {
    merge_packed(arguments, session);
  } else {
    merge_dense(arguments, *base, arch, session);
  }
}

void add_combine_options(CLI::App& command, CombineConfig& combine) {
  static const std::map<std::string, MajoritySign> kSigns{
      {"total", MajoritySign::kTotal}, {"frequency", MajoritySign::kFrequency}};
  command
      .add_option("--density", combine.density,
                  "kept by ties, dare and magnitude_prune")
      ->check(real_number(1e-9, 1))
      ->capture_default_str();
  command
      .add_option("--majority-sign", combine.majority_sign,
                  "of ties: by sum (total) or by number (frequency)")
      ->transform(CLI::CheckedTransformer(kSigns))
      ->default_str("total");
  command
      .add_option("--svd-rank", combine.svd_rank,
                  "of the methods with svd: rank of the combined change "
                  "(default: the adapters' largest)")
      ->check(whole_number(1));
  command.add_option("--seed", combine.seed, "of dare")
      ->check(any_seed())
      ->capture_default_str();
}

void add_packed_options(CLI::App& command, MergeArguments& arguments) {
  const char* const group = "For a quantized base";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group(group);
  };
  add("--calibration", arguments.calibration.text,
      "text to calibrate on: integers in groups are rounded by GPTQ (default: "
      "round to nearest)");
  add("--samples", arguments.calibration.samples, "of calibration")
      ->check(whole_number(1))
      ->capture_default_str();
  add("--sequence-length", arguments.calibration.sequence_length,
      "tokens of a calibration sample")
      ->check(whole_number(1))
      ->capture_default_str();
  add("--text", arguments.evaluate.text,
      "text to measure perplexities on: of the base, of its exact change, of "
      "the result");
  add("--context", arguments.evaluate.context, "tokens of a window of it")
      ->check(whole_number(2))
      ->capture_default_str();
  add("--max-windows", arguments.evaluate.max_windows,
      "the first K windows only (0: all)")
      ->check(whole_number());
  add("--format", arguments.format, "of the result (default: the base's)");
  add("--json", arguments.json,
      "write what survived as JSON to this file (-: stdout)");
}

}  // namespace

void add_merge_command(CLI::App& app) {
  static const std::map<std::string, DType> kDTypes{
      {"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}};
  auto arguments = std::make_shared<MergeArguments>();
  CLI::App* command =
      app.add_subcommand("merge", "merge LoRA adapters into a base model");
  command->add_option("base", arguments->base, "the base model")->required();
  add_adapter_arguments(*command, arguments->adapters);
  command->add_option("--output", arguments->copy.output, "where to write")
      ->required();
  command
      ->add_option("--dtype", arguments->copy.dtype,
                   "type of the result: f32, bf16, f16 (default: the base's)")
      ->transform(CLI::CheckedTransformer(kDTypes));
  command
      ->add_option(
          "--combine", arguments->method,
          "of several adapters, as PEFT's add_weighted_adapter; cat is "
          "their exact sum")
      ->check(CLI::IsMember(combine_method_names()))
      ->default_str("cat");
  add_combine_options(*command, arguments->combine);
  add_no_resume_option(*command, arguments->copy.no_resume);
  add_packed_options(*command, *arguments);
  add_session_options(*command, arguments->session);
  command->footer(
      "Examples:\n  llmpress merge ./my-model ./my-adapter --output ./merged "
      "--dtype bf16\n  llmpress merge ./my-model ./a ./b --scale 1 --scale 0.5 "
      "--combine ties --density 0.2 --output ./merged\n  llmpress merge "
      "./my-model-w4 ./my-adapter --output ./merged-w4 --calibration "
      "train.txt --text held-out.txt\nMerging first and quantizing after, in "
      "one recipe, keeps more of an adapter\nthan merging into a quantized "
      "base.");
  command->callback([arguments] {
    arguments->combine.method = *parse_combine_method(arguments->method);
    merge(*arguments);
  });
}

}  // namespace llmpress
