#include "distill/domains.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

// Apart from what else is drawn for the same position.
constexpr std::uint64_t kChoosing = 0x646f6d61696e;

std::size_t domain_of(std::span<const DomainState> states, double u) {
  double below = 0;
  for (std::size_t d = 0; d + 1 < states.size(); ++d) {
    below += states[d].weight;
    if (u < below) return d;
  }
  return states.size() - 1;
}

void append(TrainingBatch& batch, const TrainingBatch& more) {
  const auto add = [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  add(batch.input.tokens, more.input.tokens);
  add(batch.input.sequences, more.input.sequences);
  add(batch.targets, more.targets);
}

}  // namespace

std::vector<DomainState> first_states(std::span<const TrainingDomain> domains) {
  double sum = 0;
  for (const TrainingDomain& domain : domains) sum += domain.weight;
  std::vector<DomainState> states;
  for (const TrainingDomain& domain : domains) {
    states.push_back({.weight = domain.weight / sum});
  }
  return states;
}

TrainingBatch draw_batch(std::span<const TrainingDomain> domains,
                         std::uint64_t seed, std::size_t first,
                         std::size_t count, std::span<DomainState> states) {
  assert(domains.size() == states.size());
  std::vector<std::size_t> counts(domains.size());
  Rng mixed(seed ^ kChoosing);
  const std::uint64_t base = mixed.next();
  for (std::size_t i = first; i < first + count; ++i) {
    ++counts[domain_of(states, Rng(Rng(base ^ i).next()).uniform())];
  }
  TrainingBatch batch;
  for (std::size_t d = 0; d < domains.size(); ++d) {
    if (counts[d] == 0) continue;
    append(batch,
           domains[d].data->shuffled(seed + d, states[d].drawn, counts[d]));
    states[d].drawn += counts[d];
  }
  batch.draw = BatchDraw{seed, first};
  return batch;
}

void reweight(std::span<const TrainingDomain> domains,
              std::span<const double> losses, double rate,
              std::span<DomainState> states) {
  // Of the largest excess 1, so that nothing overflows.
  std::vector<double> excess(domains.size());
  for (std::size_t d = 0; d < domains.size(); ++d) {
    excess[d] = rate * std::max(0.0, losses[d] - domains[d].reference_loss);
  }
  const double most = *std::ranges::max_element(excess);
  double sum = 0;
  for (std::size_t d = 0; d < domains.size(); ++d) {
    states[d].weight *= std::exp(excess[d] - most);
    sum += states[d].weight;
  }
  for (DomainState& state : states) state.weight /= sum;
}

}  // namespace llmpress
