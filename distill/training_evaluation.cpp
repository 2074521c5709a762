#include "distill/training_evaluation.h"

#include <algorithm>
#include <numeric>

namespace llmpress {
namespace {

// Sums over the scored tokens, and their number.
struct Sums {
  LossTerms terms{};
  double scored = 0;

  LossTerms mean() const { return terms.scaled(1 / std::max(1.0, scored)); }
};

Sums losses_of(const TrainingData& data, const TrainingJob& job,
               ThreadPool& pool) {
  const TrainConfig& config = job.config;
  const std::size_t count =
      std::min(data.sequences(), config.evaluate_sequences);
  Sums sums;
  for (std::size_t first = 0; first < count; first += config.batch_size) {
    std::vector<std::size_t> indices(
        std::min(config.batch_size, count - first));
    std::iota(indices.begin(), indices.end(), first);
    const TrainingBatch batch = data.batch(indices);
    const auto weight = static_cast<double>(batch.scored());
    if (weight == 0) continue;
    sums.terms +=
        job.objective->run(*job.model, batch, 1, Gradients::kNone, pool)
            .scaled(weight);
    sums.scored += weight;
  }
  return sums;
}

}  // namespace

EvaluatedLosses evaluated_losses(const TrainingJob& job, ThreadPool& pool) {
  if (job.domains.empty()) {
    const TrainingData& data = job.held_out ? *job.held_out : *job.data;
    return {.all = losses_of(data, job, pool).mean()};
  }
  EvaluatedLosses found;
  Sums sums;
  for (const TrainingDomain& domain : job.domains) {
    const Sums own =
        losses_of(domain.held_out ? *domain.held_out : *domain.data, job, pool);
    sums.terms += own.terms;
    sums.scored += own.scored;
    found.domains.push_back(own.mean().cross_entropy);
  }
  found.all = sums.mean();
  return found;
}

bool evaluates_held_out(const TrainingJob& job) {
  return job.domains.empty() ? job.held_out != nullptr
                             : job.domains.front().held_out != nullptr;
}

}  // namespace llmpress
