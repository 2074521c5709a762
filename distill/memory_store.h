// Checkpoints of training that are kept in memory, for training that is short
// enough to start anew after a kill.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "distill/trainer.h"

namespace llmpress {

class MemoryStore : public TrainingStore {
 public:
  void save(const std::string& name, const TrainingProgress& progress,
            std::span<const Parameter> parameters,
            std::span<const OptimizerState> states) override;
  bool load(const std::string& name, TrainingProgress& progress,
            std::span<const Parameter> parameters,
            std::span<OptimizerState> states) override;

 private:
  struct Saved {
    TrainingProgress progress{};
    std::vector<std::vector<float>> values{};
    std::vector<OptimizerState> states{};
  };
  std::map<std::string, Saved> saved_{};
};

}  // namespace llmpress
