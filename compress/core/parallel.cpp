#include "compress/core/parallel.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "compress/core/cancel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace llmpress {
namespace {

using Body = std::function<void(std::size_t, std::size_t)>;

// Whether this thread is inside a body: a nested call must not wait for threads
// that wait for it.
thread_local bool inside_body = false;

// Long enough to bridge the gap between two products of one decoding step
// (tens of microseconds), too short to be seen as load.
constexpr int kSpins = 1000;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

template <class Condition>
bool spin_until(Condition condition) {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return true;
    pause();
  }
  return condition();
}

struct Job {
  std::size_t count, grain, chunks;
  const Body* body;
  std::atomic<std::size_t> next_chunk{0};
  std::atomic<std::size_t> workers{0};  // raised under the pool's mutex
  std::mutex error_mutex{};
  std::exception_ptr error{};
  std::size_t error_chunk = 0;

  Job(std::size_t count_in, std::size_t grain_in, const Body& body_in)
      : count(count_in),
        grain(grain_in),
        chunks(count_in / grain_in + (count_in % grain_in != 0)),
        body(&body_in) {}

  void run_chunk(std::size_t chunk) const {
    stop_if_cancelled();
    const std::size_t begin = chunk * grain;
    (*body)(begin, begin + std::min(grain, count - begin));
  }

  // Chunks are taken in ascending order, so when one throws, all lower ones
  // are done or under way: the lowest error does not depend on timing.
  void work() {
    const bool outer = inside_body;
    inside_body = true;
    for (;;) {
      const std::size_t chunk = next_chunk.fetch_add(1);
      if (chunk >= chunks) break;
      try {
        run_chunk(chunk);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error || chunk < error_chunk) {
          error = std::current_exception();
          error_chunk = chunk;
        }
        next_chunk.store(chunks);
      }
    }
    inside_body = outer;
  }
};

}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> threads{};
  std::mutex call_mutex{};  // one call from outside at a time
  std::mutex mutex{};       // guards job, sleepers, stop
  std::condition_variable wake{}, done{};
  Job* job = nullptr;
  std::size_t sleepers = 0;
  bool stop = false;
  std::atomic<std::uint64_t> generation{0};

  void worker() {
    std::uint64_t seen = 0;
    for (;;) {
      spin_until([&] { return generation.load() != seen; });
      std::unique_lock lock(mutex);
      ++sleepers;
      wake.wait(lock, [&] { return stop || generation.load() != seen; });
      --sleepers;
      if (stop) return;
      seen = generation.load();
      Job* const mine = job;
      if (mine == nullptr) continue;  // came too late, the call has ended
      mine->workers.fetch_add(1);
      lock.unlock();
      mine->work();
      lock.lock();
      if (mine->workers.fetch_sub(1) == 1) done.notify_all();
    }
  }

  void shut_down() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
      generation.fetch_add(1);
    }
    wake.notify_all();
    for (std::thread& t : threads) t.join();
  }

  // Threads that have not woken by the time the chunks are used up are not
  // waited for.
  void run(Job& mine) {
    const std::lock_guard call_lock(call_mutex);
    bool anyone_asleep = false;
    {
      const std::lock_guard lock(mutex);
      job = &mine;
      generation.fetch_add(1);
      anyone_asleep = sleepers > 0;
    }
    if (anyone_asleep) wake.notify_all();
    mine.work();
    {
      const std::lock_guard lock(mutex);
      job = nullptr;
    }
    spin_until([&] { return mine.workers.load() == 0; });
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return mine.workers.load() == 0; });
  }
};

ThreadPool::ThreadPool(std::size_t threads)
    : state_(std::make_unique<State>()) {
  if (threads == 0) {
    threads = std::max(1u, std::thread::hardware_concurrency());
  }
  try {
    for (std::size_t i = 1; i < threads; ++i) {
      state_->threads.emplace_back([s = state_.get()] { s->worker(); });
    }
  } catch (...) {
    state_->shut_down();
    throw;
  }
}

ThreadPool::~ThreadPool() { state_->shut_down(); }

std::size_t ThreadPool::size() const { return state_->threads.size() + 1; }

void ThreadPool::for_ranges(std::size_t count, std::size_t grain,
                            const Body& body) {
  assert(grain > 0);
  if (count == 0) return;
  Job job(count, grain, body);
  // A single range leaves the pool to the calls inside its body.
  if (job.chunks == 1) return job.run_chunk(0);
  if (inside_body || state_->threads.empty()) {
    for (std::size_t chunk = 0; chunk < job.chunks; ++chunk) {
      job.run_chunk(chunk);
    }
    return;
  }
  state_->run(job);
  if (job.error) std::rethrow_exception(job.error);
}

void ThreadPool::for_each(std::size_t count,
                          const std::function<void(std::size_t)>& body) {
  for_ranges(count, 1, [&](std::size_t begin, std::size_t) { body(begin); });
}

}  // namespace llmpress
