// What every subcommand shares: threads, logging, progress, interruption.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/core/ranks.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/tool/interrupt.h"
#include "formats/files/output_guard.h"

namespace CLI {
class App;
}

namespace llmpress {

// The ranks that carry out a command together.
struct CommandRanks {
  Ranks ranks{};
  std::size_t sharing_processors = 1;  // as MpiRanks has it
};

// Options of every subcommand, filled by CLI11.
struct SessionOptions {
  bool quiet = false;
  bool verbose = false;
  std::size_t threads = 0;  // 0: all processors
  std::string isa{};        // empty: the best one
  CommandRanks ranks{};
  std::size_t stall_limit = 0;  // seconds that ranks wait; 0: for ever
};

void add_session_options(CLI::App& command, SessionOptions& options);
// --stall-limit of the commands that ranks carry out together.
void add_stall_limit(CLI::App& command, SessionOptions& options);
// --activations of the commands that run a model.
void add_activations_option(CLI::App& command, InputPrecision& inputs);

// --memory-limit and --scratch.
struct MemoryOptions {
  std::uint64_t limit = 0;  // bytes; 0: none
  std::filesystem::path scratch{};
};
void add_memory_options(CLI::App& command, MemoryOptions& options);

// Lives as long as a subcommand runs. Logs go to stderr, results to stdout; of
// ranks but the first nothing comes but errors.
class Session {
 public:
  explicit Session(const SessionOptions& options);
  ~Session();

  ThreadPool& pool() { return *pool_; }
  Isa isa() const { return isa_; }
  const Ranks& ranks() const { return options_.ranks.ranks; }
  // A bar with ETA on a terminal, a line now and then otherwise, nothing with
  // --quiet. Throws Error(kCancelled) after Ctrl-C.
  Progress progress();
  void log(const std::string& line);    // not with --quiet
  void debug(const std::string& line);  // only with --verbose

 private:
  SessionOptions options_;
  Isa isa_;
  InterruptWatch interrupts_{};
  std::unique_ptr<ThreadPool> pool_;
};

// 0 done; 2 wrong usage or recipe; 3 bad or missing input file; 4 the method
// failed; 130 interrupted; 1 a bug of ours.
int exit_code(ErrorCode code);

// "12.3 MB", with decimal units as file managers show them.
std::string human_bytes(std::size_t bytes);

// The output that write_json() writes: nothing for stdout.
OutputPath json_output(const std::filesystem::path& file);

// Leftovers that are not ours to remove.
void log_notes(const OutputGuard& guard, Session& session);

// Writes `json`, marked as ours, and a newline to `file`, or to stdout if it is
// "-".
void write_json(const std::string& json, const std::filesystem::path& file);

}  // namespace llmpress
