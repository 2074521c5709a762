// Decoding: greedy, sampled, beam.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compress/model/decoder.h"

namespace llmpress {

struct GenerationConfig {
  std::size_t max_new_tokens = 128;
  double temperature = 0;  // 0: greedy
  std::size_t top_k = 0;   // 0: off
  double top_p = 1;
  double repetition_penalty = 1;
  std::size_t beams = 1;   // > 1: beam search, by mean log-probability
  std::uint64_t seed = 0;
  std::vector<TokenId> stop{};  // usually EOS
};

struct GenerationResult {
  std::vector<TokenId> tokens{};  // new ones, without the stop token
  double prompt_seconds = 0, decode_seconds = 0;
};

// `prompt` must not be empty (Error(kInvalidArgument)). on_token may be empty; it
// is called for each token as it is chosen (not with beams).
GenerationResult generate(const Decoder& decoder, std::span<const TokenId> prompt,
                          const GenerationConfig& config, ThreadPool& pool,
                          const std::function<void(TokenId)>& on_token = {});

}  // namespace llmpress
