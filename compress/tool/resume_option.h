// --no-resume, of commands that keep what they have written of an output in
// OUTPUT.resume.
#pragma once

#include <filesystem>

#include "formats/files/output_guard.h"

namespace CLI {
class App;
}

namespace llmpress {

void add_no_resume_option(CLI::App& command, bool& no_resume);

// The folder of what is not finished.
OutputPath unfinished_output(const std::filesystem::path& output);

}  // namespace llmpress
