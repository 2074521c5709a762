#include "formats/files/output_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/files/system_call.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMark = "llmpress";

// "llmpress 0.1.0, process 12 on host, since 2026-01-31 12:00:00 UTC"
std::string describe_self() {
  std::array<char, 256> host{};
  std::array<char, 64> time{};
  ::gethostname(host.data(), host.size() - 1);
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  std::strftime(time.data(), time.size(), "%Y-%m-%d %H:%M:%S UTC", &utc);
  return formatted("{} {}, process {} on {}, since {}", kMark, LLMPRESS_VERSION,
                   ::getpid(), host.data(), time.data());
}

std::string read_holder(int fd) {
  std::array<char, 512> text{};
  const ssize_t n = ::pread(fd, text.data(), text.size() - 1, 0);
  return n > 0 ? std::string(text.data(), static_cast<std::size_t>(n))
               : std::string();
}

// The file there is, or a new one. Only a new one is opened with O_CREAT, which
// kernels refuse for files of others in folders like /tmp.
int open_lock_file(const fs::path& path) {
  const auto try_open = [&](int flags) {
    return retry_interrupted([&] {
      return ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
                    0666);
    });
  };
  for (;;) {
    int fd = try_open(O_RDWR);
    if (fd < 0 && errno == EACCES) fd = try_open(O_RDONLY);
    if (fd < 0 && errno == ENOENT) fd = try_open(O_RDWR | O_CREAT | O_EXCL);
    if (fd >= 0 || errno != EEXIST) return fd;
  }
}

bool is_still_at(int fd, const fs::path& path) {
  struct stat opened {
  }, there{};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &there) == 0 &&
         opened.st_dev == there.st_dev && opened.st_ino == there.st_ino;
}

}  // namespace

OutputLock::OutputLock(const fs::path& target)
    : path_(target.parent_path() /
            ("." + target.filename().string() + ".llmpress-lock")) {
  const auto refuse = [&](ErrorCode code, const std::string& why) {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    fail(code, "{}: {}", target, why);
  };
  for (;;) {
    fd_ = open_lock_file(path_);
    if (fd_ < 0) {
      refuse(ErrorCode::kIo,
             formatted("cannot be written, no lock can be made beside it: {}",
                       std::strerror(errno)));
    }
    const std::string holder = read_holder(fd_);
    if (!holder.empty() && !holder.starts_with(kMark)) {
      refuse(ErrorCode::kInvalidArgument,
             formatted("{} is in the way, and is no lock of llmpress", path_));
    }
    if (retry_interrupted([&] { return ::flock(fd_, LOCK_EX | LOCK_NB); }) !=
        0) {
      if (errno != EWOULDBLOCK) break;  // no locks here
      refuse(ErrorCode::kIo, formatted("is being written by another run ({}); "
                                       "wait for it or choose another path",
                                       holder.empty() ? "just begun" : holder));
    }
    if (is_still_at(fd_, path_)) break;
    ::close(std::exchange(fd_, -1));  // its holder removed it meanwhile
  }
  const std::string self = describe_self();
  // What it says is for people: a full disk is no reason to fail here.
  if (::ftruncate(fd_, 0) == 0) {
    (void)!::pwrite(fd_, self.data(), self.size(), 0);
  }
}

OutputLock::~OutputLock() {
  if (fd_ < 0) return;
  ::unlink(path_.c_str());  // while it is held: who waits for it sees it gone
  ::close(fd_);
}

OutputLock::OutputLock(OutputLock&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

}  // namespace llmpress
