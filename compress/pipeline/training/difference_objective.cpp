#include "compress/pipeline/training/difference_objective.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "compress/core/rng.h"
#include "compress/core/sparse_difference.h"
#include "pruning/hard_concrete.h"

namespace llmpress {
namespace {

// Steps in which gates are drawn, of all.
constexpr double kDrawing = 2.0 / 3;
constexpr std::size_t kRowsPerTask = 8;

bool is_decided(float log_alpha) { return std::fabs(log_alpha) > kDecided / 2; }

// body(row) for each row of a Linear's numbers.
template <class Body>
void for_rows(const MatrixF& of, ThreadPool& pool, const Body& body) {
  pool.for_ranges(of.rows(), kRowsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t r = begin; r < end; ++r) body(r);
                  });
}

class DifferenceObjective final : public Objective {
 public:
  explicit DifferenceObjective(const DifferenceJob& job)
      : job_(job),
        text_(text_objective(job.label_smoothing, job.isa)),
        drawing_(std::max<std::size_t>(
                     1, static_cast<std::size_t>(
                            kDrawing * static_cast<double>(job.steps))) *
                 job.sequences_per_step) {
    for (DifferenceLinear* const linear : job_.linears) {
      numbers_ += linear->numbers().w.size();
    }
  }

  LossTerms run(TrainableModel& model, const TrainingBatch& batch,
                double factor, Gradients gradients, ThreadPool& pool) override {
    if (gradients == Gradients::kNone || !batch.draw) {
      settle(pool);
      return text_->run(model, batch, factor, gradients, pool);
    }
    if (!decided() && batch.draw->first >= drawing_) {
      decide_gates(job_.linears, job_.keep, pool);
    }
    if (decided()) {
      settle(pool);
      return text_->run(model, batch, factor, gradients, pool);
    }
    draw(*batch.draw, pool);
    const LossTerms terms = text_->run(model, batch, factor, gradients, pool);
    penalize(factor * job_.penalty / static_cast<double>(numbers_), pool);
    return terms;
  }

 private:
  bool decided() const {
    return is_decided(job_.linears.front()->numbers().log_alpha.data()[0]);
  }

  void settle(ThreadPool& pool) {
    for (DifferenceLinear* const linear : job_.linears) {
      DifferenceLinear::Numbers& n = linear->numbers();
      for_rows(n.w, pool, [&](std::size_t r) {
        for (std::size_t c = 0; c < n.w.cols(); ++c) {
          n.z(r, c) =
              static_cast<float>(settled_gate(double{n.log_alpha(r, c)}));
          n.slope(r, c) = 0;
        }
      });
      linear->gates_changed(pool);
    }
  }

  // A row draws from a generator of its own: the same at any thread count.
  void draw(const BatchDraw& draw, ThreadPool& pool) {
    Rng mixed(draw.seed);
    const std::uint64_t seed = Rng(mixed.next() ^ draw.first).next();
    std::uint64_t part = 0;
    for (DifferenceLinear* const linear : job_.linears) {
      DifferenceLinear::Numbers& n = linear->numbers();
      for_rows(n.w, pool, [&](std::size_t r) {
        Rng rng(Rng(seed ^ (part + r)).next());
        for (std::size_t c = 0; c < n.w.cols(); ++c) {
          // Of (0, 1), without its ends.
          const double noise = std::clamp(rng.uniform(), 1e-6, 1 - 1e-6);
          const GateValue gate = sampled_gate(double{n.log_alpha(r, c)}, noise);
          n.z(r, c) = static_cast<float>(gate.value);
          n.slope(r, c) = static_cast<float>(gate.slope);
        }
      });
      part += n.w.rows();
      linear->gates_changed(pool);
    }
  }

  void penalize(double each, ThreadPool& pool) {
    for (DifferenceLinear* const linear : job_.linears) {
      DifferenceLinear::Numbers& n = linear->numbers();
      for_rows(n.w, pool, [&](std::size_t r) {
        for (std::size_t c = 0; c < n.w.cols(); ++c) {
          n.d_log_alpha(r, c) += static_cast<float>(
              each * open_probability(double{n.log_alpha(r, c)}).slope);
        }
      });
    }
  }

  DifferenceJob job_;
  std::unique_ptr<Objective> text_;
  std::size_t drawing_, numbers_ = 0;  // sequences that are seen before
};

}  // namespace

std::unique_ptr<Objective> difference_objective(const DifferenceJob& job) {
  return std::make_unique<DifferenceObjective>(job);
}

void decide_gates(std::span<DifferenceLinear* const> linears, std::size_t keep,
                  ThreadPool& pool) {
  std::vector<std::span<const float>> parts;
  for (DifferenceLinear* const linear : linears) {
    DifferenceLinear::Numbers& n = linear->numbers();
    for (std::size_t i = 0; i < n.w.size(); ++i) {
      n.w.data()[i] *=
          static_cast<float>(settled_gate(double{n.log_alpha.data()[i]}));
    }
    parts.push_back(n.w.data());
  }
  const float least = largest_magnitudes(parts, keep);
  std::size_t above = 0;
  for (const std::span<const float> part : parts) {
    above += static_cast<std::size_t>(std::ranges::count_if(
        part, [&](float w) { return std::fabs(w) > least; }));
  }
  std::size_t equal = keep - std::min(keep, above);
  for (DifferenceLinear* const linear : linears) {
    DifferenceLinear::Numbers& n = linear->numbers();
    for (std::size_t i = 0; i < n.w.size(); ++i) {
      const float w = std::fabs(n.w.data()[i]);
      bool stays = w > least;
      if (w != 0 && w == least && equal > 0) {
        stays = true;
        --equal;
      }
      n.log_alpha.data()[i] = stays ? kDecided : -kDecided;
      n.z.data()[i] = stays ? 1.0f : 0.0f;
    }
    linear->gates_changed(pool);
  }
}

}  // namespace llmpress
