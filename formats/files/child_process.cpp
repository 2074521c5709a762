#include "formats/files/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <new>

#include "compress/core/error.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

using Clock = std::chrono::steady_clock;

// The first octet of a result: this, or 1 + the ErrorCode of a message.
constexpr char kDone = 0;

std::size_t mapped_bytes() {
  std::size_t pages = 0;
  std::ifstream file("/proc/self/statm");
  if (!(file >> pages)) pages = 0;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

void limit(__rlimit_resource resource, std::size_t value) {
  struct rlimit now {};
  if (::getrlimit(resource, &now) != 0) return;
  now.rlim_cur = std::min<rlim_t>(value, now.rlim_max);
  ::setrlimit(resource, &now);
}

// Nothing that the library or the C library says at its end is for the user.
void silence() {
  const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, fd);
}

void write_all(int fd, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) ::_exit(1);
    at += static_cast<std::size_t>(n);
  }
}

[[noreturn]] void be_child(int fd, const ChildLimits& limits,
                           const std::function<std::string()>& body) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Ctrl-C reaches the whole group; the parent decides.
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, SIG_IGN);
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU}) {
    std::signal(signal, SIG_DFL);
  }
  silence();
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, limits.cpu_seconds);
  limit(RLIMIT_AS, mapped_bytes() + limits.memory_bytes);
  try {
    write_all(fd, kDone + body());
  } catch (const Error& e) {
    write_all(fd, static_cast<char>(1 + static_cast<int>(e.code())) +
                      std::string(e.what()));
  } catch (...) {  // bad_alloc: what a size in the file asked for
    ::_exit(1);
  }
  ::_exit(0);
}

class Child {
 public:
  explicit Child(pid_t id) : id_(id) {}
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Kills it if it still runs; its wait status.
  int end() {
    if (id_ <= 0) return status_;
    ::kill(id_, SIGKILL);
    return wait();
  }
  int wait() {
    while (::waitpid(id_, &status_, 0) < 0 && errno == EINTR) {
    }
    id_ = -1;
    return status_;
  }

 private:
  pid_t id_;
  int status_ = 0;
};

struct Pipe {
  std::array<int, 2> ends{-1, -1};
  Pipe() {
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) ends = {-1, -1};
  }
  ~Pipe() {
    close(0);
    close(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close(std::size_t end) {
    if (ends[end] >= 0) ::close(ends[end]);
    ends[end] = -1;
  }
};

// False: the time or the length ran out.
bool read_all(int fd, const ChildLimits& limits, std::string& text) {
  const auto deadline =
      Clock::now() + std::chrono::seconds(limits.wall_seconds);
  std::array<char, 65536> buffer{};
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - Clock::now());
    if (left.count() <= 0 || text.size() > limits.message_bytes) return false;
    struct pollfd ready {
      .fd = fd, .events = POLLIN, .revents = 0
    };
    const int polled = ::poll(&ready, 1, static_cast<int>(left.count()));
    if (polled < 0 && errno == EINTR) continue;
    if (polled <= 0) return false;
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return true;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

std::string end_of(int status, const ChildLimits& limits) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU) {
    return formatted("took over {} s", limits.cpu_seconds);
  }
  if (WIFSIGNALED(status)) {
    return formatted("ended by signal {}", WTERMSIG(status));
  }
  return "ended early, as where memory runs out";
}

}  // namespace

std::string run_in_child(const std::string& where, const ChildLimits& limits,
                         const std::function<std::string()>& body) {
  Pipe pipe;
  const pid_t id = pipe.ends[0] < 0 ? -1 : ::fork();
  if (id < 0) {
    fail(ErrorCode::kResource, "{}: cannot start a process to read it: {}",
         where, std::strerror(errno));
  }
  if (id == 0) be_child(pipe.ends[1], limits, body);
  Child child(id);
  pipe.close(1);
  std::string text;
  const bool in_time = read_all(pipe.ends[0], limits, text);
  const int status = in_time ? child.wait() : child.end();
  if (!in_time || !WIFEXITED(status) || WEXITSTATUS(status) != 0 ||
      text.empty()) {
    fail(ErrorCode::kCorruptFile, "{}: reading it {}; the file is damaged",
         where, in_time ? end_of(status, limits) : "did not end");
  }
  const char kind = text[0];
  text.erase(0, 1);
  if (kind == kDone) return text;
  throw Error(static_cast<ErrorCode>(kind - 1), text);
}

}  // namespace llmpress
