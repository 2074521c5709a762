#include "compress/tool/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>

#include "compress/core/error.h"
#include "compress/tool/commands.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

int fail(int code, const char* what) {
  std::fprintf(stderr, "llmpress: error: %s\n", what);
  return code;
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
  add_merge_command(app);
  add_unmerge_command(app);
  add_extract_command(app);
  add_inspect_command(app);
  add_verify_command(app);
  add_generate_command(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& e) {
    // --help and --version come this way too, with code 0.
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const Error& e) {
    return fail(exit_code(e.code()), e.what());
  } catch (const std::bad_alloc&) {
    return fail(exit_code(ErrorCode::kResource), "out of memory");
  } catch (const std::exception& e) {
    std::fprintf(stderr,
                 "llmpress: internal error: %s\nThis is a bug of llmpress; "
                 "please report it with the command line.\n",
                 e.what());
    return 1;
  }
}

}  // namespace llmpress
