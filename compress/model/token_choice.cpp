#include "compress/model/token_choice.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/formatted.h"

namespace llmpress {

void penalize_in_place(std::span<float> logits, std::span<const TokenId> seen,
                       double penalty) {
  if (penalty == 1) return;
  std::vector<TokenId> distinct(seen.begin(), seen.end());
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  if (!distinct.empty() && distinct.back() >= logits.size()) {
    fail(ErrorCode::kInvalidArgument,
         "token id {} is not in the vocabulary of {}", distinct.back(),
         logits.size());
  }
  const auto p = static_cast<float>(penalty);
  for (const TokenId t : distinct) {
    logits[t] = logits[t] > 0 ? logits[t] / p : logits[t] * p;
  }
}

std::vector<TokenProbability> sampling_distribution(
    std::span<const float> logits, const SamplingConfig& config) {
  assert(config.temperature > 0);
  std::vector<TokenProbability> kept(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) {
      fail(ErrorCode::kNumeric, "logit of token {} is not a number", i);
    }
    kept[i] = {static_cast<TokenId>(i), static_cast<double>(logits[i])};
  }
  const auto before = [](const TokenProbability& a, const TokenProbability& b) {
    return a.probability != b.probability ? a.probability > b.probability
                                          : a.token < b.token;
  };
  if (config.top_k != 0 && config.top_k < kept.size()) {
    const auto end = kept.begin() + static_cast<std::ptrdiff_t>(config.top_k);
    std::partial_sort(kept.begin(), end, kept.end(), before);
    kept.resize(config.top_k);
  } else {
    std::sort(kept.begin(), kept.end(), before);
  }
  if (kept.empty() || !std::isfinite(kept[0].probability)) {
    throw Error(ErrorCode::kNumeric, "the largest logit is not finite");
  }
  const double max = kept[0].probability;
  double sum = 0;
  for (TokenProbability& t : kept) {
    t.probability = std::exp((t.probability - max) / config.temperature);
    sum += t.probability;
  }
  double reached = 0;
  std::size_t count = 0;
  while (count < kept.size() && (count == 0 || reached < config.top_p * sum)) {
    reached += kept[count++].probability;
  }
  kept.resize(count);
  for (TokenProbability& t : kept) t.probability /= reached;
  return kept;
}

TokenId sample(std::span<const TokenProbability> distribution, Rng& rng) {
  assert(!distribution.empty());
  double u = rng.uniform();
  for (const TokenProbability& t : distribution) {
    u -= t.probability;
    if (u < 0) return t.token;
  }
  return distribution.back().token;  // rounding left a little of u
}

}  // namespace llmpress
