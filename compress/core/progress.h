// Long work reports through one callback; libraries never print.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace llmpress {

struct ProgressEvent {
  std::string phase{};   // "calibrate", "quantize", "evaluate"
  std::size_t done = 0;  // of total
  std::size_t total = 0;
  std::string detail{};  // "model.layers.3.mlp.down_proj"
};

// May be empty. May throw Error(kCancelled) to stop the work.
using Progress = std::function<void(const ProgressEvent&)>;

inline void report(const Progress& progress, const ProgressEvent& event) {
  if (progress) progress(event);
}

}  // namespace llmpress
