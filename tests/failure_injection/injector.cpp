// Preloaded into the program by its tests (LD_PRELOAD): stands before the
// system calls of our readers and writers, those of the libraries included, and
// lets one fail. Only files below LLMPRESS_INJECT_BELOW are touched, never the
// standard streams.
//
//   LLMPRESS_INJECT=KIND:N
//     full     the disk is full after N octets
//     sync     the Nth fsync fails          (EIO)
//     rename   the Nth rename fails         (EACCES)
//     create   the Nth new file or folder   (EACCES)
//     open     no file is opened to read from the Nth on (EMFILE)
//     read     the Nth read                 (EIO)
//     map      the Nth mmap of a file       (ENOMEM)
//     new      the Nth operator new of at least 4096 octets: nlohmann::json
//              ends the program where a destructor finds no small memory
//     kill     SIGKILL at the Nth call that changes a file or folder
//     short    reads and writes do half of what they are asked
//     again    every other call is interrupted (EINTR)
//     count    none; at the end LLMPRESS_INJECT_COUNTS gets "KIND N" lines
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <new>

namespace {

enum Kind {
  kFull,
  kSync,
  kRename,
  kCreate,
  kOpen,
  kRead,
  kMap,
  kNew,
  kKill,
  kShort,
  kAgain,
  kCount,
  kKinds
};
constexpr const char* kNames[] = {"full", "sync",  "rename", "create",
                                  "open", "read",  "map",    "new",
                                  "kill", "short", "again",  "count"};
static_assert(std::size(kNames) == kKinds);

Kind wanted = kKinds;
std::int64_t wanted_number = 0;
const char* below = "";
std::atomic<std::int64_t> counts[kKinds];
// Since the first file below: before it, memory is short to no handler.
std::atomic<bool> working = false;

__attribute__((constructor)) void read_environment() {
  const char* const text = std::getenv("LLMPRESS_INJECT");
  const char* const folder = std::getenv("LLMPRESS_INJECT_BELOW");
  if (text == nullptr || folder == nullptr) return;
  below = folder;
  const char* const colon = std::strchr(text, ':');
  if (colon == nullptr) return;
  wanted_number = std::atoll(colon + 1);
  for (int k = 0; k < kKinds; ++k) {
    const auto length = static_cast<std::size_t>(colon - text);
    if (std::strlen(kNames[k]) == length &&
        std::strncmp(kNames[k], text, length) == 0) {
      wanted = static_cast<Kind>(k);
    }
  }
}

__attribute__((destructor)) void write_counts() {
  const char* const path = std::getenv("LLMPRESS_INJECT_COUNTS");
  if (wanted != kCount || path == nullptr) return;
  wanted = kKinds;
  std::FILE* const file = std::fopen(path, "w");
  for (int k = 0; k < kKinds; ++k) {
    std::fprintf(file, "%s %lld\n", kNames[k],
                 static_cast<long long>(counts[k].load()));
  }
  std::fclose(file);
}

template <class F>
F* next(F*, const char* name) {
  return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
}
#define NEXT(function) next(&::function, #function)

bool is_below(const char* path) {
  const bool found =
      wanted != kKinds && std::strncmp(path, below, std::strlen(below)) == 0;
  if (found) working = true;
  return found;
}

bool is_below(int fd) {
  if (wanted == kKinds || fd <= STDERR_FILENO) return false;
  char link[64], path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = ::readlink(link, path, sizeof path - 1);
  if (n <= 0) return false;
  path[n] = 0;
  return is_below(path);
}

// Whether the call of this kind is the one to fail.
bool hit(Kind kind) {
  return ++counts[kind] == wanted_number && wanted == kind;
}

bool fails(Kind kind, int error) {
  if (!hit(kind)) return false;
  errno = error;
  return true;
}

void change() {
  if (hit(kKill)) ::kill(::getpid(), SIGKILL);
}

bool interrupted() {
  thread_local bool odd = false;
  if (wanted != kAgain) return false;
  odd = !odd;
  if (odd) errno = EINTR;
  return odd;
}

std::size_t halved(std::size_t size) {
  return wanted == kShort ? std::max<std::size_t>(size / 2, size != 0) : size;
}

// Of `size` octets, how many the disk takes; -1 with ENOSPC for none.
ssize_t room(std::size_t size) {
  change();
  if (interrupted()) return -1;
  const auto asked = static_cast<std::int64_t>(halved(size));
  const std::int64_t before = counts[kFull].fetch_add(asked);
  if (wanted != kFull || before + asked <= wanted_number) return asked;
  if (before >= wanted_number) {
    errno = ENOSPC;
    return -1;
  }
  return wanted_number - before;
}

bool may_open(const char* path, int flags) {
  if (!is_below(path)) return true;
  if (interrupted()) return false;
  if ((flags & O_CREAT) == 0) {
    const bool out = ++counts[kOpen] >= wanted_number && wanted == kOpen;
    if (out) errno = EMFILE;
    return !out;
  }
  change();
  return !fails(kCreate, EACCES);
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* data, size_t size) {
  if (is_below(fd)) {
    const ssize_t taken = room(size);
    if (taken < 0) return -1;
    size = static_cast<size_t>(taken);
  }
  return NEXT(write)(fd, data, size);
}

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  if (is_below(fd)) {
    const ssize_t taken = room(size);
    if (taken < 0) return -1;
    size = static_cast<size_t>(taken);
  }
  return NEXT(pwrite64)(fd, data, size, at);
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  return pwrite64(fd, data, size, at);
}

ssize_t read(int fd, void* data, size_t size) {
  if (is_below(fd)) {
    if (interrupted() || fails(kRead, EIO)) return -1;
    size = halved(size);
  }
  return NEXT(read)(fd, data, size);
}

ssize_t pread64(int fd, void* data, size_t size, off64_t at) {
  if (is_below(fd)) {
    if (interrupted() || fails(kRead, EIO)) return -1;
    size = halved(size);
  }
  return NEXT(pread64)(fd, data, size, at);
}
ssize_t pread(int fd, void* data, size_t size, off_t at) {
  return pread64(fd, data, size, at);
}

int open64(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list more;
    va_start(more, flags);
    mode = va_arg(more, mode_t);
    va_end(more);
  }
  return may_open(path, flags) ? NEXT(open64)(path, flags, mode) : -1;
}
int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list more;
    va_start(more, flags);
    mode = va_arg(more, mode_t);
    va_end(more);
  }
  return open64(path, flags, mode);
}

int fsync(int fd) {
  if (is_below(fd)) {
    change();
    if (interrupted() || fails(kSync, EIO)) return -1;
  }
  return NEXT(fsync)(fd);
}

int rename(const char* from, const char* to) {
  if (is_below(from)) {
    change();
    if (fails(kRename, EACCES)) return -1;
  }
  return NEXT(rename)(from, to);
}

int renameat2(int a, const char* from, int b, const char* to,
              unsigned int flags) {
  if (is_below(from)) {
    change();
    if (fails(kRename, EACCES)) return -1;
  }
  return NEXT(renameat2)(a, from, b, to, flags);
}

int mkdir(const char* path, mode_t mode) {
  if (is_below(path)) {
    change();
    if (fails(kCreate, EACCES)) return -1;
  }
  return NEXT(mkdir)(path, mode);
}

int unlink(const char* path) {
  if (is_below(path)) change();
  return NEXT(unlink)(path);
}
int remove(const char* path) {
  if (is_below(path)) change();
  return NEXT(remove)(path);
}
int unlinkat(int folder, const char* name, int flags) {
  if (is_below(name) || is_below(folder)) change();
  return NEXT(unlinkat)(folder, name, flags);
}

void* mmap64(void* at, size_t size, int protection, int flags, int fd,
             off64_t offset) {
  if (fd >= 0 && is_below(fd) && fails(kMap, ENOMEM)) return MAP_FAILED;
  return NEXT(mmap64)(at, size, protection, flags, fd, offset);
}
void* mmap(void* at, size_t size, int protection, int flags, int fd,
           off_t offset) {
  return mmap64(at, size, protection, flags, fd, offset);
}

}  // extern "C"

void* operator new(std::size_t size) {
  if (working && size >= 4096 && hit(kNew)) throw std::bad_alloc();
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
