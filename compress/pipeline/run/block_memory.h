// What compressing one block takes of memory (memory_model.h).
#pragma once

#include <cstddef>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/core/input_stats.h"
#include "compress/model/architecture.h"
#include "compress/model/live_widths.h"
#include "compress/pipeline/run/kept_inputs.h"
#include "compress/pipeline/run/memory_model.h"

namespace llmpress {

// Bytes, but for widths: numbers a token.
class BlockMemory {
 public:
  // `reference`: whether the tokens run through the uncompressed model too.
  // `job` must outlive it.
  BlockMemory(const MemoryJob& job, std::size_t layer, bool reference,
              const KeptInputs& kept);

  // Of all calibration tokens between two stages.
  std::size_t kept_width() const;
  // With the states of all tokens, so many bytes for each of their numbers.
  double peak(double state) const;
  double packed() const;
  // For each number that a token of a batch has.
  double batch_bytes() const;

 private:
  struct LinearCost {
    double numbers = 0;  // of W
    double stored = 0;   // bytes as the checkpoint has it
    double packed = 0;   // as it is written
  };

  LinearTreatment treatment_of(std::size_t l) const;
  bool smooths() const;
  StatsNeeds needs_of_stage(std::size_t s) const;
  bool is_made_by_batches(std::size_t s) const;
  std::size_t batch_tokens() const;
  // What all tokens have before stage s runs.
  std::size_t width_at(std::size_t s) const;
  double moments(std::size_t s) const;
  // A batch runs towards the stage while its moments grow.
  double collecting(std::size_t s) const;
  double solving(std::size_t s) const;
  // W as it was read and in float32, what the methods make of it.
  double work(std::size_t l) const;
  double without_calibration() const;
  // The block in float32 and a runner of it; of a search, the sample that it
  // looks at and one more runner.
  double smoothing() const;

  const MemoryJob& job_;
  std::size_t layer_;
  KeptInputs kept_;
  const BlockSpec& spec_;
  LiveWidths widths_;
  bool calibrated_;
  std::size_t streams_;
  std::vector<LinearCost> linears_{};
  double numbers_ = 0, stored_ = 0;
};

}  // namespace llmpress
