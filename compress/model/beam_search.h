// Beam search: the `beams` likeliest continuations are kept at every step; the
// one with the best mean log-probability per chosen token wins.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/model/decoder.h"

namespace llmpress {

struct BeamConfig {
  std::size_t beams = 4;
  std::size_t max_new_tokens = 128;
  double repetition_penalty = 1;  // on the logits, before log_softmax
  std::vector<TokenId> stop{};
};

struct BeamHypothesis {
  std::vector<TokenId> tokens{};  // without the stop token
  double log_probability = 0;     // of all chosen tokens, the stop token too
  bool stopped = false;           // ended by a stop token

  // log_probability / number of chosen tokens.
  double mean() const;
};

// Ends when `beams` hypotheses have met a stop token and no live one has a
// better mean than the worst of them, or at max_new_tokens (>= 1). All beams
// run as one batch; each has its own cache.
BeamHypothesis beam_search(const Decoder& decoder,
                           std::span<const TokenId> prompt,
                           const BeamConfig& config, ThreadPool& pool);

// Tokens of a prompt that run at a time.
inline constexpr std::size_t kPromptRows = 512;

// Runs the prompt through `cache`, a piece at a time so that activations stay
// small, and returns the logits after its last token [1, vocabulary].
MatrixF read_prompt(const Decoder& decoder, std::span<const TokenId> prompt,
                    KvCache& cache, ThreadPool& pool);

}  // namespace llmpress
