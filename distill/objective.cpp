#include "distill/objective.h"

#include "distill/losses/cross_entropy.h"

namespace llmpress {
namespace {

class TextObjective final : public Objective {
 public:
  TextObjective(float label_smoothing, Isa isa)
      : label_smoothing_(label_smoothing), isa_(isa) {}

  LossTerms run(TrainableModel& model, const TrainingBatch& batch,
                double factor, Gradients gradients, ThreadPool& pool) override {
    const std::vector<float> weights = batch.mean_weights(factor);
    const std::span<const std::int32_t> targets = batch.targets;
    BatchLoss loss{.row_weights = weights,
                   .dropout_seed = batch.dropout_seed()};
    loss.logits = [&](std::size_t first, ConstMatrixView Z,
                      MatrixView<float> G) {
      return cross_entropy_loss(Z, targets.subspan(first, Z.rows()),
                                std::span(weights).subspan(first, Z.rows()),
                                label_smoothing_, G, pool, isa_);
    };
    const double sum = gradients == Gradients::kAdd
                           ? model.run_backward(batch.input, loss, pool)
                           : model.loss(batch.input, loss, pool);
    return {.total = sum / factor, .cross_entropy = sum / factor};
  }

 private:
  float label_smoothing_;
  Isa isa_;
};

}  // namespace

LossTerms& LossTerms::operator+=(const LossTerms& other) {
  total += other.total;
  cross_entropy += other.cross_entropy;
  divergence += other.divergence;
  hidden += other.hidden;
  relation += other.relation;
  on_policy += other.on_policy;
  return *this;
}

LossTerms LossTerms::scaled(double factor) const {
  return {total * factor,  cross_entropy * factor, divergence * factor,
          hidden * factor, relation * factor,      on_policy * factor};
}

std::unique_ptr<Objective> text_objective(float label_smoothing, Isa isa) {
  return std::make_unique<TextObjective>(label_smoothing, isa);
}

}  // namespace llmpress
