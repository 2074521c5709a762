#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string_view>

#include "compress/tool/command_line.h"

namespace {

// nlohmann::json allocates in its destructor, which may not throw: where memory
// is short the program cannot go on, and says why.
[[noreturn]] void end_at_once() {
  if (const std::exception_ptr error = std::current_exception()) {
    try {
      std::rethrow_exception(error);
    } catch (const std::bad_alloc&) {
      constexpr std::string_view kMessage =
          "llmpress: error: out of memory; ended at once\n";
      (void)!write(STDERR_FILENO, kMessage.data(), kMessage.size());
      _exit(4);
    } catch (...) {
    }
  }
  std::abort();
}

}  // namespace

int main(int argc, char** argv) {
  std::set_terminate(end_at_once);
  return llmpress::run_command_line(argc, argv);
}
