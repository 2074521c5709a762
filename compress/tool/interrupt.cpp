#include "compress/tool/interrupt.h"

#include <semaphore.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <string_view>
#include <thread>

#include "compress/core/cancel.h"

namespace llmpress {
namespace {

// A product of large matrices or a hash has no safe point for longer.
constexpr std::chrono::milliseconds kPatience{600};
constexpr std::string_view kMessage =
    "llmpress: error: interrupted; run the same command again to go on\n";
constexpr int kInterrupted = 130;

sem_t wake;  // posted by the handler, which may do little else

void on_signal(int signal) {
  const int kept = errno;
  request_cancel();
  ::sem_post(&wake);
  std::signal(signal, SIG_DFL);
  errno = kept;
}

}  // namespace

struct InterruptWatch::State {
  std::mutex mutex{};
  std::condition_variable ended{};
  bool done = false;
  std::thread watcher{};

  void watch() {
    while (::sem_wait(&wake) != 0) {  // EINTR
    }
    std::unique_lock lock(mutex);
    if (ended.wait_for(lock, kPatience, [&] { return done; })) return;
    (void)!::write(STDERR_FILENO, kMessage.data(), kMessage.size());
    ::_exit(kInterrupted);
  }
};

InterruptWatch::InterruptWatch() : state_(std::make_unique<State>()) {
  ::sem_init(&wake, 0, 0);
  state_->watcher = std::thread([s = state_.get()] { s->watch(); });
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

InterruptWatch::~InterruptWatch() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  {
    const std::lock_guard lock(state_->mutex);
    state_->done = true;
  }
  state_->ended.notify_all();
  ::sem_post(&wake);
  state_->watcher.join();
}

}  // namespace llmpress
