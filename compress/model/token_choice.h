// Choosing the next token from logits.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/rng.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

// z / penalty for positive z, z * penalty for others, once for every distinct
// token of `seen` (arXiv:1909.05858, section 4.1). Ids beyond the logits throw
// Error(kInvalidArgument).
void penalize_in_place(std::span<float> logits, std::span<const TokenId> seen,
                       double penalty);

struct SamplingConfig {
  double temperature = 1;  // > 0
  std::size_t top_k = 0;   // 0: off
  double top_p = 1;
};

// A token with its probability, after temperature, top-k and top-p.
struct TokenProbability {
  TokenId token = 0;
  double probability = 0;
};

// What sampling draws from: falling probabilities, lower ids first among
// equals, renormalized. Throws Error(kNumeric) if a logit is NaN or all are
// -infinity.
std::vector<TokenProbability> sampling_distribution(
    std::span<const float> logits, const SamplingConfig& config);

TokenId sample(std::span<const TokenProbability> distribution, Rng& rng);

}  // namespace llmpress
