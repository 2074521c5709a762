#include "compress/core/side_task.h"

#include <utility>

namespace llmpress {

SideTask::~SideTask() {
  if (running_.valid()) running_.wait();
}

void SideTask::start(std::function<void()> task) {
  wait();
  running_ = std::async(std::launch::async, std::move(task));
}

void SideTask::wait() {
  if (running_.valid()) running_.get();
}

}  // namespace llmpress
