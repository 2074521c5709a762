#include "compress/tool/session.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <thread>

#include "compress/core/blas_core_type.h"
#include "compress/core/cancel.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "compress/core/printable.h"
#include "compress/kernels/isa_choice.h"
#include "compress/tool/console.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/progress_bar.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {
namespace {

// Threads beyond the processors only wait; a few times as many do no harm.
std::size_t most_threads() {
  return std::max(64u, 4 * std::thread::hardware_concurrency());
}

// 0: one for each processor.
std::size_t threads_of(const SessionOptions& options) {
  const std::size_t sharing = options.ranks.sharing_processors;
  if (options.threads != 0 || sharing == 1) {
    return std::min(options.threads, most_threads());
  }
  return std::max<std::size_t>(1,
                               std::thread::hardware_concurrency() / sharing);
}

SessionOptions quiet_unless_first(SessionOptions options) {
  if (options.ranks.ranks.is_first()) return options;
  options.quiet = true;
  options.verbose = false;
  return options;
}

}  // namespace

void add_session_options(CLI::App& command, SessionOptions& options) {
  command
      .add_option("--threads", options.threads,
                  "threads to use (default: all processors)")
      ->check(whole_number());
  command.add_option("--isa", options.isa,
                     "instruction set of the kernels: scalar, avx2, "
                     "avx512-vnni (default: the best there is); avx2 gives the "
                     "same bytes on every processor that has it");
  auto* quiet = command.add_flag("--quiet,-q", options.quiet,
                                 "print results only, no log and no progress");
  command.add_flag("--verbose,-v", options.verbose, "log more")
      ->excludes(quiet);
}

void add_activations_option(CLI::App& command, InputPrecision& inputs) {
  static const std::map<std::string, InputPrecision> kWords{
      {"stored", InputPrecision::kExact}, {"int8", InputPrecision::kInt8}};
  command
      .add_option("--activations", inputs,
                  "stored, or int8: rounded by blocks of 128, for speed")
      ->transform(CLI::CheckedTransformer(kWords))
      ->default_str("stored");
}

void add_stall_limit(CLI::App& command, SessionOptions& options) {
  command
      .add_option("--stall-limit", options.stall_limit,
                  "end all MPI ranks if one waits so many seconds for another; "
                  "longer than any rank works alone (0: wait for ever)")
      ->check(whole_number())
      ->capture_default_str();
}

void add_memory_options(CLI::App& command, MemoryOptions& options) {
  command
      .add_option(
          "--memory-limit", options.limit,
          "most memory to use, e.g. 8GiB; what grows goes to disk, what "
          "cannot fit is refused")
      ->transform(CLI::AsSizeValue(false))
      ->transform(CLI::Validator(positive_size(), "SIZE"));
  command.add_option("--scratch", options.scratch,
                     "folder for what the memory limit leaves no room for");
}

Session::Session(const SessionOptions& options)
    : options_(quiet_unless_first(options)),
      isa_(choose_isa(options.isa)),
      pool_(std::make_unique<ThreadPool>(threads_of(options))) {
  ranks().set_patience(std::chrono::seconds(options.stall_limit));
  auto logger = spdlog::stderr_color_mt("llmpress");
  logger->set_pattern("%^%v%$");
  logger->set_level(options_.verbose ? spdlog::level::debug
                    : options_.quiet ? spdlog::level::err
                                     : spdlog::level::info);
  spdlog::set_default_logger(logger);
  if (options.threads > pool_->size()) {
    log(formatted("--threads {}: more than this machine can use, taking {}",
                  options.threads, pool_->size()));
  }
  debug(formatted("kernels {}, float32 products OpenBLAS {}, {} threads",
                  isa_name(isa_), blas_core_name(), pool_->size()));
}

Session::~Session() { spdlog::drop("llmpress"); }

Progress Session::progress() {
  std::shared_ptr<ProgressBar> bar;
  if (!options_.quiet) {
    bar = std::make_shared<ProgressBar>(isatty(STDERR_FILENO) == 1);
  }
  return [bar](const ProgressEvent& event) {
    stop_if_cancelled();
    if (bar) bar->update(event);
  };
}

void Session::log(const std::string& line) {
  spdlog::info("{}", printable(line));
}
void Session::debug(const std::string& line) {
  spdlog::debug("{}", printable(line));
}

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return 2;
    case ErrorCode::kCorruptFile:
    case ErrorCode::kInvalidInput:
    case ErrorCode::kUnsupported:
    case ErrorCode::kIo:
      return 3;
    case ErrorCode::kNumeric:
    case ErrorCode::kResource:
      return 4;
    case ErrorCode::kCancelled:
      return 130;  // 128 + SIGINT, as shells report it
  }
  return 1;
}

std::string human_bytes(std::size_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : "%.2f %s", value,
                kUnits[unit]);
  return text;
}

OutputPath json_output(const std::filesystem::path& file) {
  return {"the file of --json", file == "-" ? std::filesystem::path() : file,
          OutputKind::kJsonFile};
}

void write_json(const std::string& json, const std::filesystem::path& file) {
  const std::string text = printable(marked_json(json), "\n") + "\n";
  if (file == "-") {
    print("%s", text.c_str());
  } else {
    write_file_atomically(file, text);
  }
}

void log_notes(const OutputGuard& guard, Session& session) {
  for (const std::string& note : guard.notes()) session.log(note);
}

}  // namespace llmpress
