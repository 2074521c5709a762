// The standard streams of a subcommand: results to stdout, and nothing from a
// file that would steer the terminal.
#pragma once

#include <string_view>

namespace llmpress {

// As printf, with what printable() would write out written out; line feeds
// stay. Text of any origin may stand in the arguments.
[[gnu::format(printf, 1, 2)]] void print(const char* format, ...);

// Text that a model wrote: exactly, unless stdout is a terminal.
void print_generated(std::string_view text);

// Before anything is opened: a closed stdin or stderr becomes /dev/null, so
// that no file gets its number. Throws Error(kIo) if stdout is closed.
void open_standard_streams();

// From now on what is printed goes nowhere.
void silence_results();

// Throws Error(kIo) unless everything that was printed has been written.
void flush_results();

}  // namespace llmpress
