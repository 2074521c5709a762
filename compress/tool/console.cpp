#include "compress/tool/console.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/printable.h"

namespace llmpress {
namespace {

void put(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

bool is_closed(int fd) { return ::fcntl(fd, F_GETFD) < 0 && errno == EBADF; }

}  // namespace

void print(const char* format, ...) {
  std::va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int size = std::vsnprintf(nullptr, 0, format, arguments);
  std::string text(size < 0 ? 0 : static_cast<std::size_t>(size), '\0');
  std::vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  va_end(arguments);
  put(printable(text, "\n"));
}

void print_generated(std::string_view text) {
  put(::isatty(STDOUT_FILENO) == 1 ? printable(text, "\n\t")
                                   : std::string(text));
}

void open_standard_streams() {
  const bool no_stdout = is_closed(STDOUT_FILENO);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // The lowest free number is this one.
    if (is_closed(fd)) (void)!::open("/dev/null", O_RDWR);
  }
  if (no_stdout) {
    throw Error(ErrorCode::kIo, "standard output is closed");
  }
}

void silence_results() {
  const int nowhere = ::open("/dev/null", O_WRONLY);
  if (nowhere < 0) return;
  (void)::dup2(nowhere, STDOUT_FILENO);
  ::close(nowhere);
}

void flush_results() {
  const bool failed = std::ferror(stdout) != 0;
  if (std::fflush(stdout) != 0 || failed) {
    fail(ErrorCode::kIo, "cannot write the results to standard output: {}",
         std::strerror(errno));
  }
}

}  // namespace llmpress
