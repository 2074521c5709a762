// The loop of training: batches, gradients, steps, evaluations, checkpoints.
//
// What a step does depends on the configuration, the data and the state before
// it alone, so training that was cut short at any moment and goes on from its
// last checkpoint ends in the same bytes.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/progress.h"
#include "distill/domains.h"
#include "distill/objective.h"
#include "distill/optimizers/parameter_optimizer.h"
#include "distill/train_config.h"
#include "distill/training_data.h"

namespace llmpress {

// The loss of a domain, and the weight that follows from it.
struct DomainPoint {
  double loss = 0, weight = 0;
};

// After a step: the loss of its batch (of the weights before it), and where an
// evaluation was due, that of the held-out text.
struct TrainingPoint {
  std::size_t step = 0;
  LossTerms loss{};
  double learning_rate = 0, gradient_norm = 0;
  std::optional<LossTerms> evaluation{};
  // Of an evaluation of several domains, in their order.
  std::vector<DomainPoint> domains{};
};

// All that a checkpoint holds beside weights and optimizer.
struct TrainingProgress {
  std::size_t step = 0;    // done
  double rate_factor = 1;  // halved when training diverged
  std::size_t divergences = 0;
  double running_loss = 0;               // 0: none yet
  std::optional<double> best{};          // evaluation
  std::size_t best_step = 0, stale = 0;  // evaluations since
  std::vector<DomainState> domains{};    // in their order
  std::vector<TrainingPoint> curve{};
  std::vector<std::string> notes{};
};

// Where checkpoints go; each replaces the one of its name, whole or not at all.
class TrainingStore {
 public:
  virtual ~TrainingStore() = default;
  virtual void save(const std::string& name, const TrainingProgress& progress,
                    std::span<const Parameter> parameters,
                    std::span<const OptimizerState> states) = 0;
  // False if there is none.
  virtual bool load(const std::string& name, TrainingProgress& progress,
                    std::span<const Parameter> parameters,
                    std::span<OptimizerState> states) = 0;
};

struct TrainingJob {
  TrainConfig config{};
  TrainableModel* model = nullptr;
  Objective* objective = nullptr;
  TrainingData* data = nullptr;
  const TrainingData* held_out = nullptr;  // null: no evaluations
  // Several texts, of which `data` is all together (for its size alone) and
  // `held_out` is not asked; empty: one.
  std::vector<TrainingDomain> domains{};
  double domain_rate = 1;
  TrainingStore* store = nullptr;
  // The last checkpoint is that of the end, so that whoever asks again gets it.
  bool keeps_end = false;
  Progress progress{};
  std::function<void(const std::string&)> log{};
};

struct TrainingResult {
  TrainingProgress progress{};
  std::size_t steps = 0;  // that were wanted
  bool stopped_early = false;
  // Of the held-out text, or of the first sequences of the text.
  LossTerms before{}, after{};
};

// Steps that the configuration asks for on data of so many tokens.
std::size_t wanted_steps(const TrainConfig& config, const TrainingData& data);

// Trains the model in place. Throws Error(kInvalidInput) if the text is too
// short for a batch, kNumeric if training diverges four times.
TrainingResult train(const TrainingJob& job, ThreadPool& pool);

}  // namespace llmpress
