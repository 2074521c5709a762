// Texts that batches are drawn from by weights which follow their losses
// (dynamic batch loading: Sheared LLaMA, arXiv:2310.06694, Algorithm 1). At
// every evaluation, with loss l_i of domain i, its reference r_i and rate e:
//   w_i <- w_i exp(e max(l_i - r_i, 0)) / sum over j of the same
// A domain that lags behind its reference is seen more often from then on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "distill/training_data.h"

namespace llmpress {

struct TrainingDomain {
  std::string name{};
  TrainingData* data = nullptr;
  const TrainingData* held_out = nullptr;  // null: the first of `data`
  double weight = 1;  // at the beginning; their sum is what counts
  double reference_loss = 0;
};

// What training knows of a domain.
struct DomainState {
  double weight = 0;      // the part of the sequences that is drawn from it
  std::size_t drawn = 0;  // sequences so far

  bool operator==(const DomainState&) const = default;
};

std::vector<DomainState> first_states(std::span<const TrainingDomain> domains);

// Sequences [first, first + count) of training: the domain of each follows from
// seed, position and weights, and within a domain they come one after another,
// every epoch shuffled anew. Counts what it draws in `states`.
TrainingBatch draw_batch(std::span<const TrainingDomain> domains,
                         std::uint64_t seed, std::size_t first,
                         std::size_t count, std::span<DomainState> states);

// `losses`: of each domain.
void reweight(std::span<const TrainingDomain> domains,
              std::span<const double> losses, double rate,
              std::span<DomainState> states);

}  // namespace llmpress
