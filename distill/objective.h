// What training minimizes on one batch.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "compress/model/decoder.h"
#include "compress/model/training/trainable_model.h"
#include "distill/distill_config.h"
#include "distill/teacher.h"
#include "distill/training_data.h"

namespace llmpress {

// Means over the scored tokens of a batch, in nats where they are of logits.
struct LossTerms {
  double total = 0;          // the weighted sum that is minimized
  double cross_entropy = 0;  // of the text
  double divergence = 0;     // from the teacher
  double hidden = 0;
  double relation = 0;
  double on_policy = 0;  // the share that the student wrote itself

  LossTerms& operator+=(const LossTerms& other);
  LossTerms scaled(double factor) const;
};

enum class Gradients { kAdd, kNone };

class Objective {
 public:
  virtual ~Objective() = default;
  // `factor` times the batch's loss enters the gradients; the terms returned
  // are without it.
  virtual LossTerms run(TrainableModel& model, const TrainingBatch& batch,
                        double factor, Gradients gradients,
                        ThreadPool& pool) = 0;
  // What learns beside the model.
  virtual std::vector<Parameter> parameters() { return {}; }
};

// Next tokens alone.
std::unique_ptr<Objective> text_objective(float label_smoothing,
                                          Isa isa = best_isa());

struct DistillJob {
  DistillConfig config{};
  const TrainableModel* student = nullptr;
  Teacher* teacher = nullptr;
  // The teacher where it is a model that runs, which `hidden` and `relation`
  // need; null: they are 0.
  RunningTeacher* running = nullptr;
  float label_smoothing = 0;
  std::vector<TokenId> stops{};  // that end what the student writes
  Isa isa = best_isa();
};

// With student block boundaries spread evenly over the teacher's (block b of n
// faces b * m / n of m), the last among them; where widths differ, through a
// projection that learns with the student (DistilBERT, arXiv:1910.01108;
// TinyBERT, arXiv:1909.10351). On what the student wrote itself the text's loss
// is left out. Both must outlive this. Throws Error(kUnsupported) for relations
// of a block without attention, kInvalidArgument for heads that do not divide
// its widths.
std::unique_ptr<Objective> distill_objective(const DistillJob& job);

}  // namespace llmpress
