// A thread beside the caller's pool, for what must not keep the pool waiting: one
// task at a time, in the order in which they come.
#pragma once

#include <functional>
#include <future>

namespace llmpress {

class SideTask {
 public:
  SideTask() = default;
  // Waits for the task; what it throws is lost.
  ~SideTask();
  SideTask(const SideTask&) = delete;
  SideTask& operator=(const SideTask&) = delete;

  // Waits for the task before, and rethrows what that one threw; this one is not
  // begun then.
  void start(std::function<void()> task);
  // Waits for the last task and rethrows what it threw.
  void wait();

 private:
  std::future<void> running_{};
};

}  // namespace llmpress
