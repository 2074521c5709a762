#include "distill/objective.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "distill/losses/cross_entropy.h"

namespace llmpress {
namespace {

// 1 / scored of each scored row, so that sums are means.
std::vector<float> mean_weights(const TrainingBatch& batch, double factor) {
  const auto each = static_cast<float>(
      factor / static_cast<double>(std::max<std::size_t>(1, batch.scored())));
  std::vector<float> weights(batch.targets.size());
  for (std::size_t t = 0; t < weights.size(); ++t) {
    if (batch.targets[t] >= 0) weights[t] = each;
  }
  return weights;
}

class TextObjective final : public Objective {
 public:
  TextObjective(float label_smoothing, Isa isa)
      : label_smoothing_(label_smoothing), isa_(isa) {}

  LossTerms run(TrainableModel& model, const TrainingBatch& batch,
                double factor, Gradients gradients, ThreadPool& pool) override {
    const std::vector<float> weights = mean_weights(batch, factor);
    const std::span<const std::int32_t> targets = batch.targets;
    BatchLoss loss{.row_weights = weights};
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

std::vector<Segment> alone(const TokenBatch& batch) {
  std::vector<Segment> segments;
  for (const std::size_t rows : batch.sequences) {
    segments.push_back({.rows = rows});
  }
  return segments;
}

class DistillObjective final : public Objective {
 public:
  DistillObjective(const DistillConfig& config, const TrainableModel& student,
                   const Decoder& teacher, float label_smoothing, Isa isa)
      : config_(config),
        teacher_(teacher),
        label_smoothing_(label_smoothing),
        isa_(isa),
        blocks_(student.blocks().size()) {
    const Architecture &s = student.architecture(), &t = teacher.architecture();
    if (s.vocabulary != t.vocabulary) {
      fail(ErrorCode::kInvalidArgument,
           "the teacher has a vocabulary of {}, the student of {}",
           t.vocabulary, s.vocabulary);
    }
    if (config.hidden == 0 || s.hidden == t.hidden) return;
    // Close to an embedding of the narrower into the wider.
    projection_ = MatrixF(t.hidden, s.hidden);
    d_projection_ = MatrixF(t.hidden, s.hidden);
    Rng rng(0);
    const double scale = 1 / std::sqrt(static_cast<double>(s.hidden));
    for (float& p : projection_.data()) {
      p = static_cast<float>(rng.normal() * scale);
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
    const std::vector<float> weights = mean_weights(batch, factor);
    const MatrixF taught = run_teacher(batch, pool);
    LossTerms terms;
    BatchLoss loss{.row_weights = weights};
    loss.logits = [&](std::size_t first, ConstMatrixView Z,
                      MatrixView<float> G) {
      return logit_loss(batch, weights, taught.view(), first, Z, G, terms,
                        pool);
    };
    if (config_.hidden > 0) {
      for (std::size_t b = 1; b <= blocks_; ++b) loss.boundaries.push_back(b);
      loss.stream = [&](std::size_t boundary, ConstMatrixView H,
                        MatrixView<float> G) {
        return stream_loss(weights, boundary, H, G, terms, pool);
      };
    }
    measuring_ = gradients == Gradients::kNone;
    if (!measuring_) {
      (void)model.run_backward(batch.input, loss, pool);
    } else {
      (void)model.loss(batch.input, loss, pool);
    }
    terms.total = config_.cross_entropy * terms.cross_entropy +
                  config_.divergence * terms.divergence +
                  config_.hidden * terms.hidden;
    return terms.scaled(1 / factor);
  }

 private:
  // The teacher's stream behind its last block; those at the boundaries that
  // the student's face are kept aside.
  MatrixF run_teacher(const TrainingBatch& batch, ThreadPool& pool) {
    const std::vector<Segment> segments = alone(batch.input);
    const std::size_t layers = teacher_.blocks().size();
    faced_.assign(blocks_ + 1, {});
    BlockState state =
        teacher_.ends().begin(batch.input.tokens, segments, pool);
    for (std::size_t l = 0; l < layers; ++l) {
      teacher_.blocks()[l].run(segments, state, pool);
      if (config_.hidden == 0) continue;
      for (std::size_t b = 1; b <= blocks_; ++b) {
        if (b * layers / blocks_ == l + 1) faced_[b] = state.hidden;
      }
    }
    return std::move(state.hidden);
  }

  // Scales a term's weights by its part of the sum.
  static std::vector<float> part(std::span<const float> weights,
                                 double factor) {
    std::vector<float> scaled(weights.begin(), weights.end());
    for (float& w : scaled) w *= static_cast<float>(factor);
    return scaled;
  }

  double logit_loss(const TrainingBatch& batch, std::span<const float> weights,
                    ConstMatrixView taught, std::size_t first,
                    ConstMatrixView Z, MatrixView<float> G, LossTerms& terms,
                    ThreadPool& pool) const {
    const std::size_t rows = Z.rows();
    const auto own = weights.subspan(first, rows);
    double total = 0;
    if (config_.cross_entropy > 0 || measuring_) {
      const double w = config_.cross_entropy > 0 ? config_.cross_entropy : 1;
      const double sum =
          cross_entropy_loss(Z, std::span(batch.targets).subspan(first, rows),
                             part(own, w), label_smoothing_, G, pool, isa_);
      terms.cross_entropy += sum / w;
      total += config_.cross_entropy > 0 ? sum : 0;
    }
    if (config_.divergence > 0 || measuring_) {
      const double w = config_.divergence > 0 ? config_.divergence : 1;
      const MatrixF T =
          teacher_.ends().logits(taught.rows_slice(first, rows), pool);
      const double sum = divergence_loss(
          Z, T.view(), part(own, w),
          {config_.kind, static_cast<float>(config_.temperature),
           static_cast<float>(config_.beta)},
          G, pool, isa_);
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
        config_.distance, H, faced_[boundary].view(), projection_.view(),
        part(weights, w), G, d_projection_.view(), pool);
    terms.hidden += sum / config_.hidden;
    return sum;
  }

  DistillConfig config_;
  const Decoder& teacher_;
  float label_smoothing_;
  Isa isa_;
  std::size_t blocks_;
  bool measuring_ = false;  // terms of weight 0 as well
  MatrixF projection_{}, d_projection_{};
  std::vector<MatrixF> faced_{};  // by the student's boundary
};

}  // namespace

LossTerms& LossTerms::operator+=(const LossTerms& other) {
  total += other.total;
  cross_entropy += other.cross_entropy;
  divergence += other.divergence;
  hidden += other.hidden;
  return *this;
}

LossTerms LossTerms::scaled(double factor) const {
  return {total * factor, cross_entropy * factor, divergence * factor,
          hidden * factor};
}

std::unique_ptr<Objective> text_objective(float label_smoothing, Isa isa) {
  return std::make_unique<TextObjective>(label_smoothing, isa);
}

std::unique_ptr<Objective> distill_objective(const DistillConfig& config,
                                             const TrainableModel& student,
                                             const Decoder& teacher,
                                             float label_smoothing, Isa isa) {
  return std::make_unique<DistillObjective>(config, student, teacher,
                                            label_smoothing, isa);
}

}  // namespace llmpress
