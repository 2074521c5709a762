// What a training stage did, as plain values.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "distill/trainer.h"

namespace llmpress {

struct TrainingReport {
  std::string stage{};  // "train", "distill"
  std::string text_sha256{};
  std::size_t parameters = 0;  // that learn
  std::size_t tokens_per_step = 0, steps = 0;
  std::vector<std::string> domains{};  // names of several texts
  std::vector<double> reference_losses{};
  bool held_out = false;  // evaluations are of a text of their own
  bool stopped_early = false;
  LossTerms before{}, after{};  // evaluated
  double seconds = 0;           // of the last call
  TrainingProgress progress{};
};

// Of checkpoints and reports alike. Throws Error(kCorruptFile) with `origin`.
std::string progress_to_json(const TrainingProgress& progress);
TrainingProgress progress_from_json(const std::string& json,
                                    const std::string& origin);

std::string to_json(const TrainingReport& report);
TrainingReport training_report_from_json(const std::string& json,
                                         const std::string& origin);
// "trained 300 steps of 4096 tokens: 4.1052 -> 3.8211 (held out)", and what
// happened on the way.
std::vector<std::string> describe(const TrainingReport& report);

}  // namespace llmpress
