#include <CLI/CLI.hpp>
#include <memory>

#include "compress/core/formatted.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/evaluation/verification.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct VerifyArguments {
  SessionOptions session{};
  std::filesystem::path path{}, against{};
  bool json = false, strict = false;
};

Verification verification_of(const VerifyArguments& arguments,
                             Session& session) {
  const auto checkpoint = open_checkpoint(arguments.path);
  const Architecture arch = read_architecture(*checkpoint);
  std::unique_ptr<Checkpoint> base;
  if (!arguments.against.empty()) base = open_checkpoint(arguments.against);
  return verify(*checkpoint, arch, base.get(), session.pool(),
                session.progress());
}

// What cannot even be opened is a finding too where findings are read by a
// program.
Verification or_what_was_thrown(const VerifyArguments& arguments,
                                Session& session) {
  if (!arguments.json) return verification_of(arguments, session);
  try {
    return verification_of(arguments, session);
  } catch (const Error& error) {
    const Verification nothing{
        .path = arguments.path.string(),
        .findings = {
            {FindingKind::kError, arguments.path.string(), error.what()}}};
    print("%s\n", to_json(nothing).c_str());
    throw;
  }
}

void print_findings(const Verification& result) {
  for (const VerifiedLinear& linear : result.linears) {
    if (linear.relative_error) {
      print("%-48s %-20s relative error %.3e\n", linear.name.c_str(),
            linear.type.c_str(), *linear.relative_error);
    }
  }
  for (const Finding& finding : result.findings) {
    if (finding.kind == FindingKind::kError) continue;  // to stderr, below
    print("%s\n", to_line(finding).c_str());
  }
}

void verify_path(const VerifyArguments& arguments) {
  Session session(arguments.session);
  const Verification result = or_what_was_thrown(arguments, session);
  if (arguments.json) {
    print("%s\n", to_json(result).c_str());
  } else {
    print_findings(result);
  }
  const std::size_t errors = result.count(FindingKind::kError);
  const std::size_t warnings = result.count(FindingKind::kWarning);
  if (errors > 0) {
    std::string list;
    for (const Finding& finding : result.findings) {
      if (finding.kind == FindingKind::kError) list += "\n" + to_line(finding);
    }
    fail(ErrorCode::kInvalidInput, "{}: {} errors, {} warnings{}", result.path,
         errors, warnings, list);
  }
  if (arguments.strict && warnings > 0) {
    fail(ErrorCode::kInvalidInput, "{}: {} warnings", result.path, warnings);
  }
  if (arguments.json) return;
  print("%s: ok, %zu tensors, %zu Linears, %zu warnings\n", result.path.c_str(),
        result.tensors, result.linears.size(), warnings);
}

}  // namespace

void add_verify_command(CLI::App& app) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command = app.add_subcommand(
      "verify", "check a model's structure, shapes and values");
  command->add_option("path", arguments->path, "model or artifact")->required();
  command->add_option("--against", arguments->against,
                      "base model, for the error of each Linear");
  command->add_flag("--strict", arguments->strict,
                    "exit code 3 for warnings too");
  command->add_flag("--json", arguments->json, "print JSON");
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress verify ./my-model-w4 --against ./my-model");
  command->callback([arguments] { verify_path(*arguments); });
}

}  // namespace llmpress
