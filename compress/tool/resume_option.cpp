#include "compress/tool/resume_option.h"

#include <CLI/CLI.hpp>

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

}  // namespace llmpress
