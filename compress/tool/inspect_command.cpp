#include <CLI/CLI.hpp>
#include <memory>

#include "compress/core/formatted.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/evaluation/inspection.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct InspectArguments {
  SessionOptions session{};
  std::filesystem::path path{}, against{};
  bool json = false;
};

struct OpenedCheckpoint {
  std::unique_ptr<Checkpoint> checkpoint;
  Architecture arch;
};

OpenedCheckpoint open(const std::filesystem::path& path) {
  auto checkpoint = open_checkpoint(path);
  Architecture arch = read_architecture(*checkpoint);
  return {std::move(checkpoint), std::move(arch)};
}

void inspect_path(const InspectArguments& arguments) {
  Session session(arguments.session);
  const OpenedCheckpoint opened = open(arguments.path);
  for (const std::string& note : opened.checkpoint->notes()) session.log(note);
  Inspection inspection = inspect(*opened.checkpoint, opened.arch);
  if (const auto chat = load_chat_template(arguments.path)) {
    inspection.chat_template = chat->name;
  }
  if (arguments.json) {
    print("%s\n", to_json(inspection).c_str());
    return;
  }
  print("%s: %s, %s\n", inspection.path.c_str(), inspection.model_type.c_str(),
        inspection.format.c_str());
  for (const InspectedTensor& t : inspection.tensors) {
    std::string shape;
    for (const std::size_t d : t.shape) {
      shape += (shape.empty() ? "" : " x ") + std::to_string(d);
    }
    print("  %-48s %-18s %-20s %10s  %7.3f bits\n", t.name.c_str(),
          shape.c_str(), t.type.c_str(), human_bytes(t.bytes).c_str(),
          t.bits_per_weight);
  }
  print("Linears of the blocks: %zu weights, %s, %.3f bits per weight\n",
        inspection.size.linear_weights,
        human_bytes(inspection.size.linear_bytes).c_str(),
        inspection.size.linear_bits_per_weight());
  print("whole model: %zu weights, %s, %.3f bits per weight\n",
        inspection.size.weights,
        human_bytes(inspection.size.weight_bytes).c_str(),
        inspection.size.bits_per_weight());
  if (!inspection.chat_template.empty()) {
    print("chat template: in %s\n", inspection.chat_template.c_str());
  }
}

void verify_path(const InspectArguments& arguments) {
  Session session(arguments.session);
  const OpenedCheckpoint opened = open(arguments.path);
  std::unique_ptr<Checkpoint> base;
  if (!arguments.against.empty()) base = open_checkpoint(arguments.against);
  const Verification result =
      verify(*opened.checkpoint, opened.arch, base.get(), session.pool(),
             session.progress());
  for (const VerifiedLinear& linear : result.linears) {
    if (linear.relative_error) {
      print("%-48s %-20s relative error %.3e\n", linear.name.c_str(),
            linear.type.c_str(), *linear.relative_error);
    }
  }
  for (const std::string& note : result.notes) {
    print("note: %s\n", note.c_str());
  }
  if (!result.problems.empty()) {
    std::string list;
    for (const std::string& problem : result.problems) list += "\n  " + problem;
    fail(ErrorCode::kInvalidInput, "{}:{}", result.path, list);
  }
  print("%s: ok, %zu tensors, %zu Linears\n", result.path.c_str(),
        result.tensors, result.linears.size());
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand(
      "inspect", "tensors, packed types, bytes and bits per weight");
  command->add_option("path", arguments->path, "model or artifact")->required();
  command->add_flag("--json", arguments->json, "print JSON");
  add_session_options(*command, arguments->session);
  command->footer("Example:\n  llmpress inspect ./my-model-w4");
  command->callback([arguments] { inspect_path(*arguments); });
}

void add_verify_command(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand(
      "verify", "check a model's structure, shapes and values");
  command->add_option("path", arguments->path, "model or artifact")->required();
  command->add_option("--against", arguments->against,
                      "base model, for the error of each Linear");
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress verify ./my-model-w4 --against ./my-model");
  command->callback([arguments] { verify_path(*arguments); });
}

}  // namespace llmpress
