#include "compress/model/generation.h"

#include <algorithm>
#include <chrono>
#include <string>

#include "compress/core/formatted.h"
#include "compress/kernels/softmax.h"
#include "compress/model/beam_search.h"
#include "compress/model/non_finite.h"
#include "compress/model/token_choice.h"

namespace llmpress {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

[[noreturn]] void wrong(const std::string& what) {
  fail(ErrorCode::kInvalidArgument, "generation: {}", what);
}

// `positions`: those that text may take.
void check(const Architecture& arch, std::size_t positions,
           std::span<const TokenId> prompt, const GenerationConfig& config) {
  if (prompt.empty()) wrong("the prompt is empty");
  if (prompt.size() > positions) {
    wrong(formatted("the prompt has {} tokens, the model {} positions",
                    prompt.size(), positions));
  }
  if (!(config.temperature >= 0)) wrong("temperature must be 0 or more");
  if (!(config.top_p > 0 && config.top_p <= 1))
    wrong("top_p must be in (0, 1]");
  if (!(config.repetition_penalty > 0)) {
    wrong("repetition_penalty must be above 0");
  }
  if (config.beams == 0 || config.beams > arch.vocabulary) {
    wrong("beams must be from 1 to the vocabulary's size");
  }
  if (config.beams > 1 && config.temperature != 0) {
    wrong("beam search takes no temperature");
  }
}

TokenId choose(std::span<float> logits, std::span<const TokenId> text,
               const GenerationConfig& config, Rng& rng) {
  penalize_in_place(logits, text, config.repetition_penalty);
  if (config.temperature == 0) return static_cast<TokenId>(argmax(logits));
  const SamplingConfig sampling{.temperature = config.temperature,
                                .top_k = config.top_k,
                                .top_p = config.top_p};
  return sample(sampling_distribution(logits, sampling), rng);
}

void decode(const Decoder& decoder, std::span<const TokenId> prompt,
            std::size_t limit, const GenerationConfig& config, ThreadPool& pool,
            const std::function<void(TokenId)>& on_token,
            GenerationResult& result) {
  auto clock = std::chrono::steady_clock::now();
  KvCache cache = decoder.make_cache(prompt.size() + limit);
  std::vector<TokenId> text(prompt.begin(), prompt.end());
  Rng rng(config.seed);
  MatrixF logits = read_prompt(decoder, prompt, cache, pool);
  result.prompt_seconds = seconds_since(clock);
  clock = std::chrono::steady_clock::now();
  while (result.tokens.size() < limit) {
    require_finite_logits(decoder, logits.row(0), text, "generation", pool);
    const TokenId token = choose(logits.row(0), text, config, rng);
    if (std::find(config.stop.begin(), config.stop.end(), token) !=
        config.stop.end()) {
      result.stop = StopReason::kStopToken;
      break;
    }
    result.tokens.push_back(token);
    text.push_back(token);
    if (on_token) on_token(token);
    if (result.tokens.size() == limit) break;
    const Segment segment{1, cache.tokens(), &cache};
    const MatrixF hidden = decoder.forward({&token, 1}, {&segment, 1}, pool);
    logits = decoder.ends().logits(hidden.view(), pool);
  }
  result.decode_seconds = seconds_since(clock);
}

}  // namespace

GenerationResult generate(const Decoder& decoder,
                          std::span<const TokenId> prompt,
                          const GenerationConfig& config, ThreadPool& pool,
                          const std::function<void(TokenId)>& on_token) {
  const Architecture& arch = decoder.architecture();
  const std::size_t positions =
      arch.max_positions -
      std::min(arch.max_positions, decoder.prefix_tokens());
  check(arch, positions, prompt, config);
  const std::size_t room = positions - prompt.size();
  const std::size_t limit = std::min(config.max_new_tokens, room);
  GenerationResult result;
  result.stop = limit < config.max_new_tokens ? StopReason::kModelLimit
                                              : StopReason::kMaxNewTokens;
  if (limit == 0) return result;
  if (config.beams == 1) {
    decode(decoder, prompt, limit, config, pool, on_token, result);
    return result;
  }
  const auto clock = std::chrono::steady_clock::now();
  const BeamHypothesis best = beam_search(
      decoder, prompt,
      {config.beams, limit, config.repetition_penalty, config.stop}, pool);
  result.tokens = best.tokens;
  if (best.stopped) result.stop = StopReason::kStopToken;
  result.decode_seconds = seconds_since(clock);
  return result;
}

}  // namespace llmpress
