#include "compress/tool/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <system_error>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/printable.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/mpi_ranks.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

// Commands that the ranks carry out together; any other is done by the first.
bool is_spread(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  return name == "run" || name == "eval" || name == "compare" ||
         name == "generate";
}

// An empty path or name is a mistake in a script; an empty prompt may be meant.
void refuse_empty_values(CLI::App& app) {
  for (CLI::App* command : app.get_subcommands({})) {
    for (CLI::Option* option : command->get_options()) {
      const bool takes_text = option->get_items_expected_max() > 0;
      if (takes_text && !option->check_lname("prompt")) {
        option->check(not_empty());
      }
    }
  }
}

class Program {
 public:
  Program(int argc, char** argv) : argc_(argc), argv_(argv) {
    app_.set_version_flag("--version", LLMPRESS_VERSION);
    app_.require_subcommand(1);
    app_.footer("Each subcommand has --help with an example.");
  }

  // Returns the exit code. Where one rank fails, all end.
  int run() {
    int code = 0;
    try {
      open_standard_streams();
      processes_ = std::make_unique<MpiRanks>();
      if (!ranks().is_first()) silence_results();
      code = is_spread(argc_, argv_) || ranks().is_first() ? parse() : 0;
      processes_->end();
    } catch (...) {
      code = report_error();
      if (processes_) processes_->abort(code);
    }
    return code;
  }

 private:
  const Ranks& ranks() const { return processes_->ranks(); }

  void add_commands() {
    const CommandRanks command_ranks{ranks(), processes_->sharing_processors()};
    add_run_command(app_, command_ranks);
    add_plan_command(app_);
    add_eval_command(app_, command_ranks);
    add_compare_command(app_, command_ranks);
    add_bench_command(app_);
    add_convert_command(app_);
    add_synth_command(app_);
    add_merge_command(app_);
    add_unmerge_command(app_);
    add_extract_command(app_);
    add_inspect_command(app_);
    add_verify_command(app_);
    add_generate_command(app_, command_ranks);
    add_logits_command(app_);
    add_imatrix_command(app_);
    refuse_empty_values(app_);
  }

  int parse() {
    add_commands();
    try {
      app_.parse(argc_, argv_);
    } catch (const CLI::ParseError& e) {
      // Every rank finds the same mistake.
      if (!ranks().is_first()) return e.get_exit_code() == 0 ? 0 : 2;
      // --help and --version come this way too, with code 0.
      if (app_.exit(e) != 0) return 2;
      if (!std::cout.flush()) {
        fail(ErrorCode::kIo, "cannot write to standard output");
      }
      return 0;
    }
    flush_results();
    return 0;
  }

  // Of the exception that is being handled.
  int report_error() const {
    try {
      throw;
    } catch (const Error& e) {
      // A launcher that ends all ranks because of one interrupts the others:
      // nothing to tell.
      if (e.code() == ErrorCode::kCancelled && is_one_of_many()) {
        return exit_code(e.code());
      }
      return report(exit_code(e.code()), e.what());
    } catch (const std::bad_alloc&) {
      return report(exit_code(ErrorCode::kResource), "out of memory");
    } catch (const std::filesystem::filesystem_error& e) {
      return report(exit_code(ErrorCode::kIo),
                    (e.path1().string() + ": " + e.code().message()).c_str());
    } catch (const std::system_error& e) {  // threads, for one
      return report(exit_code(ErrorCode::kResource),
                    formatted("the system refused: {}", e.what()).c_str());
    } catch (const std::exception& e) {
      std::fprintf(stderr,
                   "llmpress: internal error: %s\nThis is a bug of llmpress; "
                   "please report it with the command line.\n",
                   printable(e.what(), "\n").c_str());
      return 1;
    }
  }

  bool is_one_of_many() const { return processes_ && ranks().is_spread(); }

  int report(int code, const char* what) const {
    const std::string rank =
        is_one_of_many() ? formatted("rank {}: ", ranks().rank()) : "";
    std::fprintf(stderr, "llmpress: error: %s%s\n", rank.c_str(),
                 printable(what, "\n").c_str());
    return code;
  }

  int argc_;
  char** argv_;
  CLI::App app_{
      "llmpress compresses language models: calibrates, merges, prunes and "
      "quantizes a checkpoint as a recipe says, and reports what it is worth.",
      "llmpress"};
  std::unique_ptr<MpiRanks> processes_{};
};

}  // namespace

int run_command_line(int argc, char** argv) {
  return Program(argc, argv).run();
}

}  // namespace llmpress
