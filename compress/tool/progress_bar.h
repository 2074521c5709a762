// Progress on stderr: a bar that rewrites itself on a terminal, plain lines
// otherwise.
#pragma once

#include <chrono>
#include <string>

#include "compress/core/progress.h"

namespace llmpress {

class ProgressBar {
 public:
  explicit ProgressBar(bool terminal);
  ~ProgressBar();  // ends an unfinished line

  void update(const ProgressEvent& event);
  // Makes room for a line of log.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  void draw(const ProgressEvent& event, Clock::time_point now);

  bool terminal_;
  bool drawn_ = false;
  std::string phase_;
  Clock::time_point phase_start_{}, last_{};
};

// "1:02:03", "2:03"; "--:--" while nothing is known.
std::string format_eta(double seconds);

}  // namespace llmpress
