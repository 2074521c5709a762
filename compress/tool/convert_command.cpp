#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "compress/core/formatted.h"
#include "compress/core/heap_reuse.h"
#include "compress/pipeline/conversion/conversion.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/resume_option.h"
#include "compress/tool/session.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {
namespace {

struct ConvertArguments {
  SessionOptions session{};
  std::filesystem::path input{}, output{};
  std::string format{}, type{}, ends_type{};
  bool allow_lossy = false, no_resume = false;
};

std::optional<GgmlType> type_of(const std::string& option,
                                const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto type = parse_ggml_type(name);
  const bool numbers =
      type && facts(*type).plain && facts(*facts(*type).plain).floating;
  if (type && facts(*type).decodes && *type != GgmlType::kF64 &&
      (numbers || !facts(*type).plain)) {
    return type;
  }
  std::string known;
  for (const GgmlTypeFacts& row : all_ggml_types()) {
    if (!row.decodes || (row.plain && !facts(*row.plain).floating)) continue;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(ErrorCode::kInvalidArgument, "{}: '{}' is none of {}", option, name,
       known);
}

void convert(const ConvertArguments& arguments) {
  const OutputFormat& format = find_output_format(arguments.format);
  ConversionOptions options{
      .output = arguments.output,
      .format = arguments.format,
      .type = type_of("--type", arguments.type),
      .ends_type = type_of("--ends-type", arguments.ends_type),
      .allow_lossy = arguments.allow_lossy};
  Session session(arguments.session);
  const HeapReuse reuse;
  options.progress = session.progress();
  const OutputGuard guard({{"the model", arguments.input}},
                          {{"the output", arguments.output, kind_of(format)},
                           unfinished_output(arguments.output)});
  log_notes(guard, session);
  options.resume = OutputResume{
      .fingerprint = conversion_fingerprint(arguments.input, options),
      .take_up = !arguments.no_resume,
      .log = [&session](const std::string& line) { session.log(line); }};
  const auto checkpoint = open_checkpoint(arguments.input);
  for (const std::string& note : checkpoint->notes()) session.log(note);
  const ConversionReport report =
      convert_model(*checkpoint, options, session.pool());
  for (const std::string& note : report.notes) session.log(note);
  for (const RoundedLinears& r : report.rounded) {
    print("%zu Linears from %s to %s: relative error up to %.3e (%s)\n",
          r.linears, r.from.c_str(), r.to.c_str(), r.largest_error,
          r.largest.c_str());
  }
  if (report.inputs_unrounded > 0) {
    print("%zu Linears no longer round their inputs\n",
          report.inputs_unrounded);
  }
  print("converted %zu Linears and %zu other tensors (%s) into %s\n",
        report.linears, report.tensors, human_bytes(report.bytes).c_str(),
        arguments.output.c_str());
}

}  // namespace

void add_convert_command(CLI::App& app) {
  auto arguments = std::make_shared<ConvertArguments>();
  CLI::App* command = app.add_subcommand(
      "convert", "write a model in another format, code for code");
  command->add_option("input", arguments->input, "the model")->required();
  command->add_option("output", arguments->output, "where to write")
      ->required();
  command
      ->add_option("--format", arguments->format,
                   "gguf, safetensors, compressed-tensors, gptq, awq, mlx, "
                   "mxfp4, hdf5, bitsandbytes")
      ->required();
  command->add_option("--type", arguments->type,
                      "of the blocks' Linears: f32, bf16, f16; for gguf also "
                      "q4_0, q4_k, q8_0 ... (default: as they are)");
  command->add_option("--ends-type", arguments->ends_type,
                      "of embedding and head (default: --type; a head of fewer "
                      "bits than q6_k has q6_k)");
  command->add_flag("--allow-lossy", arguments->allow_lossy,
                    "round Linears that the format cannot hold as they are to "
                    "what is nearest there, and say the error");
  add_no_resume_option(*command, arguments->no_resume);
  add_session_options(*command, arguments->session);
  command->footer(
      "Examples:\n  llmpress convert ./my-model my-model.gguf --format gguf "
      "--type q4_k\n  llmpress convert my-model.gguf ./my-model --format "
      "safetensors --type bf16");
  command->callback([arguments] { convert(*arguments); });
}

}  // namespace llmpress
