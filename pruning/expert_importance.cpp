#include "pruning/expert_importance.h"

#include <cassert>
#include <cmath>
#include <numeric>

#include "pruning/unit_selection.h"

namespace llmpress {

void ExpertImportances::add(std::size_t expert, std::span<const float> g,
                            ConstMatrixView f, bool weighed) {
  assert(g.size() == f.rows());
  for (std::size_t t = 0; t < g.size(); ++t) {
    double square = 0;
    for (const float y : f.row(t)) {
      square += static_cast<double>(y) * static_cast<double>(y);
    }
    const auto weight = static_cast<double>(g[t]);
    mass_[expert] += weight;
    contribution_[expert] += (weighed ? 1.0 : weight) * std::sqrt(square);
  }
  tokens_[expert] += g.size();
}

std::vector<double> ExpertImportances::reap() const {
  std::vector<double> mean = contribution_;
  for (std::size_t e = 0; e < mean.size(); ++e) {
    if (tokens_[e] != 0) mean[e] /= static_cast<double>(tokens_[e]);
  }
  return mean;
}

std::vector<double> ExpertImportances::mass_shares() const {
  std::vector<double> shares = mass_;
  const double all = std::accumulate(mass_.begin(), mass_.end(), 0.0);
  for (double& share : shares) share = all == 0 ? 0 : share / all;
  return shares;
}

std::vector<std::size_t> keep_most_important_of_groups(
    std::span<const double> importance, std::size_t count, std::size_t groups) {
  assert(importance.size() % groups == 0 && count % groups == 0);
  const std::size_t of_group = importance.size() / groups;
  std::vector<std::size_t> kept;
  for (std::size_t g = 0; g < groups; ++g) {
    for (const std::size_t e : keep_most_important(
             importance.subspan(g * of_group, of_group), count / groups)) {
      kept.push_back(g * of_group + e);
    }
  }
  return kept;
}

}  // namespace llmpress
