#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "compress/core/formatted.h"
#include "compress/model/model_check.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "compress/pipeline/adapters/adapter_requantize.h"
#include "compress/pipeline/adapters/merge_fingerprint.h"
#include "compress/tool/adapter_arguments.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/edited_copy.h"
#include "compress/tool/resume_option.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct UnmergeArguments {
  SessionOptions session{};
  std::filesystem::path merged{};
  AdapterArguments adapters{};
  EditedCopyOptions copy{};
};

void unmerge(const UnmergeArguments& arguments) {
  Session session(arguments.session);
  std::vector<InputPath> inputs{{"the merged model", arguments.merged}};
  add_inputs(arguments.adapters, inputs);
  const OutputGuard guard(inputs, {{"the output", arguments.copy.output},
                                   unfinished_output(arguments.copy.output)});
  log_notes(guard, session);
  const auto merged = open_checkpoint(arguments.merged);
  const Architecture arch = read_architecture(*merged);
  check_model(*merged, arch);
  for (const std::string& note : merged->notes()) session.log(note);
  if (is_packed(*merged, arch)) {
    fail(ErrorCode::kUnsupported,
         "{}: is quantized; rounding took part of the adapter away, so that it "
         "cannot be taken out again",
         arguments.merged);
  }
  AdapterMerge edits = unmerge_adapters(
      *merged, arch, weighted(arguments.adapters), session.pool());
  for (const std::string& note : edits.notes) session.log(note);
  const std::size_t modules = edits.merged.size();
  edits.edits.dtype = arguments.copy.dtype;
  const auto checkpoint = overlay(*merged, std::move(edits.edits));
  write_edited_copy(
      *checkpoint, arguments.copy,
      merge_fingerprint("unmerge", arguments.merged,
                        weighted(arguments.adapters), {}, arguments.copy.dtype),
      session);
  print("took the adapters out of %zu modules, wrote %s\n", modules,
        arguments.copy.output.c_str());
}

}  // namespace

void add_unmerge_command(CLI::App& app) {
  static const std::map<std::string, DType> kDTypes{
      {"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}};
  auto arguments = std::make_shared<UnmergeArguments>();
  CLI::App* command = app.add_subcommand(
      "unmerge", "take merged LoRA adapters out of a model again");
  command->add_option("merged", arguments->merged, "the merged model")
      ->required();
  add_adapter_arguments(*command, arguments->adapters);
  add_no_resume_option(*command, arguments->copy.no_resume);
  command->add_option("--output", arguments->copy.output, "where to write")
      ->required();
  command
      ->add_option("--dtype", arguments->copy.dtype,
                   "type of the result: f32, bf16, f16 (default: the model's)")
      ->transform(CLI::CheckedTransformer(kDTypes));
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress unmerge ./merged ./my-adapter --output ./my-model\n"
      "DoRA adapters and modules_to_save cannot be taken out: what they "
      "replaced is lost.");
  command->callback([arguments] { unmerge(*arguments); });
}

}  // namespace llmpress
