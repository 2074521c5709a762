// The llmpress program.
#pragma once

namespace llmpress {

// Parses the arguments, runs the subcommand, prints errors to stderr, and
// returns the process's exit code (session.h, exit_code()).
int run_command_line(int argc, char** argv);

}  // namespace llmpress
