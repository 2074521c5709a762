// The first-order importance of a model's parts: dL/dW of every Linear, L the
// mean cross-entropy of the calibration sequences (LLM-Pruner,
// arXiv:2305.11627, Eq. 3). Memory: the model in float32 and as much again, and
// one sequence's activations.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "compress/calibration/calibration_text.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/facts.h"
#include "compress/model/training/trainable_model.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

class LossGradients {
 public:
  // Runs every sequence through the model and back. Throws
  // Error(kInvalidArgument) naming a Linear that is stored packed.
  LossGradients(const Checkpoint& checkpoint, const CalibrationSet& calibration,
                Isa isa, ThreadPool& pool, const Progress& progress);

  // [units] of a block: |sum of w dL/dw| over all that goes with a unit.
  std::vector<double> unit_importance(const BlockUnits& units,
                                      std::size_t layer) const;
  // [hidden] channels of the residual stream: over all that write and read
  // them, the ends included.
  std::vector<double> hidden_importance() const;

 private:
  struct Learned {
    ConstMatrixView weight{}, gradient{};
  };
  const Learned& linear(std::size_t layer, std::size_t index) const;

  std::unique_ptr<TrainableModel> model_;
  std::map<std::string, Learned> matrices_{};  // by tensor
};

}  // namespace llmpress
