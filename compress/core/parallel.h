// The threads that share work; side_task.h has one beside them.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace llmpress {

// A fixed set of threads, the caller among them. Work is cut into chunks whose
// boundaries depend on the count and the grain alone, never on the number of
// threads, so a body that writes only its own range gives the same bytes at any
// thread count. Sums across chunks must be combined in chunk order by the
// caller.
class ThreadPool {
 public:
  // `threads` 0: one for each processor of this machine.
  explicit ThreadPool(std::size_t threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  std::size_t size() const;

  // Calls body(begin, end) for consecutive ranges of at most `grain` items that
  // cover [0, count). Rethrows the exception of the lowest range that threw. A
  // call from inside a body runs on the calling thread, unless that body's
  // range is the only one of its call.
  void for_ranges(
      std::size_t count, std::size_t grain,
      const std::function<void(std::size_t begin, std::size_t end)>& body);

  // body(i) for i in [0, count), one item a chunk.
  void for_each(std::size_t count,
                const std::function<void(std::size_t)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmpress
