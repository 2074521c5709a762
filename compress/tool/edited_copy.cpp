#include "compress/tool/edited_copy.h"

#include <CLI/CLI.hpp>

#include "compress/pipeline/evaluation/model_copy.h"
#include "compress/pipeline/run/resume_store.h"

namespace llmpress {

void add_no_resume_option(CLI::App& command, bool& no_resume) {
  command.add_flag("--no-resume", no_resume,
                   "start anew even if an interrupted run left something in "
                   "OUTPUT.resume");
}

OutputPath unfinished_output(const std::filesystem::path& output) {
  return {"the folder of an unfinished output", resume_path(output),
          OutputKind::kResume};
}

void write_edited_copy(const Checkpoint& edited,
                       const EditedCopyOptions& options,
                       const std::string& fingerprint, Session& session) {
  copy_model(
      edited,
      {.output = options.output,
       .dtype = options.dtype,
       .progress = session.progress(),
       .pool = &session.pool(),
       .resume = OutputResume{
           .fingerprint = fingerprint,
           .take_up = !options.no_resume,
           .log = [&session](const std::string& line) { session.log(line); }}});
}

}  // namespace llmpress
