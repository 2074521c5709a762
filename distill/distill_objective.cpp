// What distillation minimizes: next tokens, and distances to a teacher.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <optional>

#include "compress/core/rng.h"
#include "distill/losses/cross_entropy.h"
#include "distill/objective.h"
#include "distill/on_policy.h"
#include "distill/relation_term.h"

namespace llmpress {
namespace {

// Scales a term's weights by its part of the sum.
std::vector<float> part(std::span<const float> weights, double factor) {
  std::vector<float> scaled(weights.begin(), weights.end());
  for (float& w : scaled) w *= static_cast<float>(factor);
  return scaled;
}

// Terms of weight 0 are measured all the same where nothing is learned.
double or_one(double weight) { return weight > 0 ? weight : 1; }

class DistillObjective final : public Objective {
 public:
  explicit DistillObjective(const DistillJob& job)
      : job_(job), config_(job_.config), blocks_(job.student->blocks().size()) {
    assert(job.running != nullptr ||
           (config_.hidden == 0 && config_.relation == 0));
    if (config_.hidden > 0) face_streams();
    if (config_.relation > 0) {
      relation_.emplace(config_, job.student->architecture(),
                        job.running->architecture(), job.isa);
      job.running->keep_attention(relation_->teacher_block());
    }
  }

  std::vector<Parameter> parameters() override {
    if (projection_.empty()) return {};
    return {{"distill.projection",
             {projection_.rows(), projection_.cols()},
             projection_.data(),
             d_projection_.data()}};
  }

  LossTerms run(TrainableModel& model, const TrainingBatch& batch,
                double factor, Gradients gradients, ThreadPool& pool) override {
    if (!is_written(batch, config_.on_policy)) {
      return run_text(model, batch, factor, gradients, pool,
                      config_.cross_entropy);
    }
    LossTerms terms =
        run_text(model,
                 written_batch(model, batch,
                               {.share = config_.on_policy,
                                .prompt = config_.on_policy_prompt,
                                .temperature = config_.on_policy_temperature,
                                .vocabulary = job_.teacher->vocabulary(),
                                .stops = job_.stops},
                               pool),
                 factor, gradients, pool, 0);
    terms.on_policy = 1;
    return terms;
  }

 private:
  void face_streams() {
    const Architecture &s = job_.student->architecture(),
                       &t = job_.running->architecture();
    std::vector<std::size_t> faced;
    for (std::size_t b = 1; b <= blocks_; ++b) {
      faced.push_back(std::max<std::size_t>(1, b * t.layers / blocks_) - 1);
    }
    job_.running->keep_streams(std::move(faced));
    if (s.hidden == t.hidden) return;
    // Close to an embedding of the narrower into the wider.
    projection_ = MatrixF(t.hidden, s.hidden);
    d_projection_ = MatrixF(t.hidden, s.hidden);
    Rng rng(0);
    const double scale = 1 / std::sqrt(static_cast<double>(s.hidden));
    for (float& p : projection_.data()) {
      p = static_cast<float>(rng.normal() * scale);
    }
  }

  // `text`: the weight of the text's own loss.
  LossTerms run_text(TrainableModel& model, const TrainingBatch& batch,
                     double factor, Gradients gradients, ThreadPool& pool,
                     double text) {
    const std::vector<float> weights = batch.mean_weights(factor);
    job_.teacher->read(batch, pool);
    measuring_ = gradients == Gradients::kNone;
    LossTerms terms;
    BatchLoss loss{.row_weights = weights,
                   .dropout_seed = batch.dropout_seed()};
    loss.logits = [&](std::size_t first, ConstMatrixView Z,
                      MatrixView<float> G) {
      return logit_loss(batch, weights, first, Z, G, text, terms, pool);
    };
    if (config_.hidden > 0) {
      for (std::size_t b = 1; b <= blocks_; ++b) loss.boundaries.push_back(b);
      loss.stream = [&](std::size_t boundary, ConstMatrixView H,
                        MatrixView<float> G) {
        return stream_loss(weights, boundary, H, G, terms, pool);
      };
    }
    if (relation_) {
      loss.values_block = relation_->student_block();
      loss.values = [&](BlockPass& pass) {
        const double sum =
            relation_->run(job_.running->attention(), batch.input.sequences,
                           part(weights, config_.relation), pass, pool);
        terms.relation += sum / config_.relation;
        return sum;
      };
    }
    if (measuring_) {
      (void)model.loss(batch.input, loss, pool);
    } else {
      (void)model.run_backward(batch.input, loss, pool);
    }
    terms.total =
        text * terms.cross_entropy + config_.divergence * terms.divergence +
        config_.hidden * terms.hidden + config_.relation * terms.relation;
    return terms.scaled(1 / factor);
  }

  double logit_loss(const TrainingBatch& batch, std::span<const float> weights,
                    std::size_t first, ConstMatrixView Z, MatrixView<float> G,
                    double text, LossTerms& terms, ThreadPool& pool) const {
    const std::size_t rows = Z.rows();
    const auto own = weights.subspan(first, rows);
    double total = 0;
    if (text > 0 || measuring_) {
      const double w = or_one(text);
      const double sum = cross_entropy_loss(
          Z, std::span(batch.targets).subspan(first, rows), part(own, w),
          job_.label_smoothing, G, pool, job_.isa);
      terms.cross_entropy += sum / w;
      total += text > 0 ? sum : 0;
    }
    if (config_.divergence > 0 || measuring_) {
      const double w = or_one(config_.divergence);
      const double sum =
          job_.teacher->divergence(first, Z, part(own, w), G, pool);
      terms.divergence += sum / w;
      total += config_.divergence > 0 ? sum : 0;
    }
    return total;
  }

  double stream_loss(std::span<const float> weights, std::size_t boundary,
                     ConstMatrixView H, MatrixView<float> G, LossTerms& terms,
                     ThreadPool& pool) {
    const double w = config_.hidden / static_cast<double>(blocks_);
    MatrixF unwanted;
    if (G.size() == 0) {
      unwanted = MatrixF(H.rows(), H.cols());
      G = unwanted.view();
    }
    const double sum = hidden_state_loss(
        config_.distance, H, job_.running->stream(boundary - 1),
        projection_.view(), part(weights, w), G, d_projection_.view(), pool);
    terms.hidden += sum / config_.hidden;
    return sum;
  }

  DistillJob job_;
  const DistillConfig& config_;  // of the job
  std::size_t blocks_;
  bool measuring_ = false;
  MatrixF projection_{}, d_projection_{};
  std::optional<RelationTerm> relation_{};
};

}  // namespace

std::unique_ptr<Objective> distill_objective(const DistillJob& job) {
  return std::make_unique<DistillObjective>(job);
}

}  // namespace llmpress
