#include "compress/tool/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>
#include <system_error>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/printable.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

int report(int code, const char* what) {
  std::fprintf(stderr, "llmpress: error: %s\n", printable(what, "\n").c_str());
  return code;
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

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app{
      "llmpress compresses language models: calibrates, merges, prunes and "
      "quantizes a checkpoint as a recipe says, and reports what it is worth.",
      "llmpress"};
  app.set_version_flag("--version", LLMPRESS_VERSION);
  app.require_subcommand(1);
  app.footer("Each subcommand has --help with an example.");
  add_run_command(app);
  add_plan_command(app);
  add_eval_command(app);
  add_compare_command(app);
  add_bench_command(app);
  add_convert_command(app);
  add_synth_command(app);
  add_merge_command(app);
  add_unmerge_command(app);
  add_extract_command(app);
  add_inspect_command(app);
  add_verify_command(app);
  add_generate_command(app);
  add_logits_command(app);
  add_imatrix_command(app);
  refuse_empty_values(app);
  try {
    open_standard_streams();
    app.parse(argc, argv);
    flush_results();
    return 0;
  } catch (const CLI::ParseError& e) {
    // --help and --version come this way too, with code 0.
    if (app.exit(e) != 0) return 2;
    return std::cout.flush() ? 0 : report(3, "cannot write to standard output");
  } catch (const Error& e) {
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

}  // namespace llmpress
