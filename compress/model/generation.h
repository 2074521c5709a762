// Decoding: greedy, sampled, beam.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compress/model/decoder.h"

namespace llmpress {

// The next token of a greedy or sampled run is chosen from logits z in this
// order: repetition penalty (CTRL, arXiv:1909.05858, section 4.1: for every
// token of the prompt and of the text so far, z / p if z > 0, else z * p);
// temperature 0: the largest z, the lowest id among equals; otherwise
// softmax(z / temperature) over the top_k largest, then over the smallest set
// whose probability reaches top_p (arXiv:1904.09751), drawn with the seed.
struct GenerationConfig {
  std::size_t max_new_tokens = 128;
  double temperature = 0;  // 0: greedy
  std::size_t top_k = 0;   // 0: off
  double top_p = 1;
  double repetition_penalty = 1;
  std::size_t beams = 1;  // > 1: beam search, by mean log-probability
  std::uint64_t seed = 0;
  std::vector<TokenId> stop{};  // usually EOS
};

// Why the text ended.
enum class StopReason {
  kStopToken,
  kMaxNewTokens,
  kModelLimit,  // prompt and text together reached max_position_embeddings
};

struct GenerationResult {
  std::vector<TokenId> tokens{};  // new ones, without the stop token
  StopReason stop = StopReason::kMaxNewTokens;
  double prompt_seconds = 0, decode_seconds = 0;
};

// `prompt` must not be empty and not longer than the model's positions
// (Error(kInvalidArgument)), as must a config out of range: temperature < 0,
// top_p outside (0, 1], repetition_penalty <= 0, beams 0 or above the
// vocabulary, beams > 1 with a temperature. Throws Error(kNumeric) naming the
// first block whose output is not finite, if logits are not. on_token may be
// empty; it is called for each token as it is chosen (not with beams). The text
// does not go beyond the model's positions: it stops there with kModelLimit.
GenerationResult generate(const Decoder& decoder,
                          std::span<const TokenId> prompt,
                          const GenerationConfig& config, ThreadPool& pool,
                          const std::function<void(TokenId)>& on_token = {});

}  // namespace llmpress
