// Ctrl-C and SIGTERM: the first asks the work to stop at its next safe point
// (compress/core/cancel.h) and ends the process where none comes soon; the
// second ends it at once. Artifacts are whole or absent either way.
#pragma once

#include <memory>

namespace llmpress {

// Takes the signals for as long as it lives. One at a time.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmpress
