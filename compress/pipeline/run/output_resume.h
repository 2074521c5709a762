// How writing a model that was cut off goes on from what it has written.
#pragma once

#include <functional>
#include <string>

namespace llmpress {

// In the folder OUTPUT.resume (resume_store.h), which the caller has locked.
struct OutputResume {
  // Lines of "name: value" of all that the output is made from.
  std::string fingerprint{};
  bool take_up = true;  // what is there; else it starts again
  std::function<void(const std::string& line)> log{};
};

}  // namespace llmpress
