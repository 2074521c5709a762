#include "compress/model/generation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/core/error.h"
#include "compress/kernels/softmax.h"
#include "tests/compress/model/naive_decoder.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

using Tokens = std::vector<TokenId>;

Decoder decoder_of(const TinyShape& shape, const TinyTensors& tensors) {
  return Decoder(MemoryCheckpoint(tensors, config_json(shape)));
}

// Blocks that add nothing and one-hot embeddings: the head is a table of what
// follows what; in a cycle 3 t + 1 follows t.
constexpr std::size_t kCycle = 12;
TinyShape cycle_shape() {
  return {.hidden = kCycle,
          .heads = 2,
          .vocabulary = kCycle,
          .more_json = R"(, "max_position_embeddings": 10)"};
}
// logits(o, t): of o after t.
Decoder table_decoder(const MatrixF& logits) {
  const TinyShape shape = cycle_shape();
  TinyTensors tensors = tiny_tensors(shape, 1);
  for (auto& [name, values] : tensors) {
    if (name.find("o_proj") != std::string::npos ||
        name.find("down_proj") != std::string::npos) {
      values = MatrixF(values.rows(), values.cols());
    }
  }
  // The final norm makes a one-hot row sqrt(kCycle) large.
  MatrixF E(kCycle, kCycle), H = logits;
  for (std::size_t t = 0; t < kCycle; ++t) E(t, t) = 1;
  for (float& h : H.data()) h /= std::sqrt(static_cast<float>(kCycle));
  tensors["model.embed_tokens.weight"] = E;
  tensors["model.norm.weight"] =
      MatrixF(std::vector<float>(kCycle, 1), 1, kCycle);
  tensors["lm_head.weight"] = H;
  return decoder_of(shape, tensors);
}
Decoder cycle_decoder() {
  MatrixF logits(kCycle, kCycle);
  for (std::size_t t = 0; t < kCycle; ++t) logits((3 * t + 1) % kCycle, t) = 3;
  return table_decoder(logits);
}

TEST(Generation, FollowsTheLikeliestTokenWhenGreedy) {
  ThreadPool pool(2);
  Tokens seen;
  const auto result =
      generate(cycle_decoder(), Tokens{0}, {.max_new_tokens = 5}, pool,
               [&](TokenId token) { seen.push_back(token); });
  EXPECT_EQ(result.tokens, (Tokens{1, 4, 1, 4, 1}));
  EXPECT_EQ(result.stop, StopReason::kMaxNewTokens);
  EXPECT_EQ(seen, result.tokens);
}

TEST(Generation, EndsBeforeAStopToken) {
  ThreadPool pool(1);
  const auto result = generate(cycle_decoder(), Tokens{2, 3},
                               {.max_new_tokens = 5, .stop = {9, 7}}, pool);
  EXPECT_EQ(result.tokens, (Tokens{10}));  // 10 -> 31 mod 12 = 7
  EXPECT_EQ(result.stop, StopReason::kStopToken);
}

TEST(Generation, EndsAtTheModelsLastPosition) {
  ThreadPool pool(1);
  const Decoder decoder = cycle_decoder();
  const auto result = generate(decoder, Tokens(7, 0), {}, pool);
  EXPECT_EQ(result.tokens, (Tokens{1, 4, 1}));
  EXPECT_EQ(result.stop, StopReason::kModelLimit);
  const auto full = generate(decoder, Tokens(10, 0), {}, pool);
  EXPECT_TRUE(full.tokens.empty());
  EXPECT_EQ(full.stop, StopReason::kModelLimit);
  const auto exact =
      generate(decoder, Tokens(7, 0), {.max_new_tokens = 3}, pool);
  EXPECT_EQ(exact.stop, StopReason::kMaxNewTokens);
}

TEST(Generation, RefusesPromptsAndSettingsOutOfRange) {
  ThreadPool pool(1);
  const Decoder decoder = cycle_decoder();
  const auto refused = [&](const Tokens& prompt,
                           const GenerationConfig& config) {
    try {
      generate(decoder, prompt, config, pool);
      return false;
    } catch (const Error& error) {
      return error.code() == ErrorCode::kInvalidArgument;
    }
  };
  EXPECT_TRUE(refused({}, {}));
  EXPECT_TRUE(refused(Tokens(11, 0), {}));
  EXPECT_TRUE(refused({0}, {.temperature = -1}));
  EXPECT_TRUE(refused({0}, {.temperature = std::nan("")}));
  EXPECT_TRUE(refused({0}, {.top_p = 0}));
  EXPECT_TRUE(refused({0}, {.top_p = 1.5}));
  EXPECT_TRUE(refused({0}, {.repetition_penalty = 0}));
  EXPECT_TRUE(refused({0}, {.beams = 0}));
  EXPECT_TRUE(refused({0}, {.beams = 13}));
  EXPECT_TRUE(refused({0}, {.temperature = 1, .beams = 2}));
  EXPECT_FALSE(refused({0}, {}));
}

// The likeliest next token by a plain forward pass over the whole text.
TokenId naive_next(const NaiveDecoder& naive, const Tokens& text) {
  const Row last = naive.logits(text).back();
  return static_cast<TokenId>(std::ranges::max_element(last) - last.begin());
}

TEST(Generation, MatchesRepeatedForwardPasses) {
  ThreadPool pool(2);
  const TinyShape shape;
  const TinyTensors tensors = tiny_tensors(shape, 2);
  const NaiveDecoder naive = NaiveDecoder::plain(shape, tensors);
  const Tokens prompt = random_tokens(4, shape.vocabulary, 3);
  Tokens text = prompt;
  for (int i = 0; i < 8; ++i) text.push_back(naive_next(naive, text));
  const auto result =
      generate(decoder_of(shape, tensors), prompt, {.max_new_tokens = 8}, pool);
  EXPECT_EQ(result.tokens, Tokens(text.begin() + 4, text.end()));
}

TEST(Generation, ReadsLongPromptsInPieces) {
  ThreadPool pool(2);
  const TinyShape shape;
  const TinyTensors tensors = tiny_tensors(shape, 2);
  const Decoder decoder = decoder_of(shape, tensors);
  const Tokens prompt = random_tokens(1100, shape.vocabulary, 4);
  const Segment all{prompt.size(), 0, nullptr};
  const MatrixF hidden = decoder.forward(prompt, {&all, 1}, pool);
  const MatrixF logits = decoder.ends().logits(
      hidden.view().rows_slice(prompt.size() - 1, 1), pool);
  const auto result = generate(decoder, prompt, {.max_new_tokens = 1}, pool);
  EXPECT_EQ(result.tokens, Tokens{static_cast<TokenId>(argmax(logits.row(0)))});
}

TEST(Generation, RepeatsASampleForTheSameSeedAtAnyThreadCount) {
  const TinyShape shape;
  const Decoder decoder = decoder_of(shape, tiny_tensors(shape, 5));
  const auto text = [&](std::uint64_t seed, std::size_t threads) {
    ThreadPool pool(threads);
    return generate(decoder, Tokens{1, 2},
                    {.max_new_tokens = 20, .temperature = 2, .seed = seed},
                    pool)
        .tokens;
  };
  EXPECT_EQ(text(1, 1), text(1, 1));
  EXPECT_EQ(text(1, 1), text(1, 3));
  EXPECT_NE(text(1, 1), text(2, 1));
}

TEST(Generation, AvoidsRepetitionsUnderAPenalty) {
  ThreadPool pool(1);
  const TinyShape shape;
  const Decoder decoder = decoder_of(shape, tiny_tensors(shape, 6));
  // So strong a penalty leaves no seen token the largest positive logit.
  const auto result =
      generate(decoder, Tokens{1, 2},
               {.max_new_tokens = 15, .repetition_penalty = 1e6}, pool);
  Tokens text = result.tokens;
  text.insert(text.end(), {1, 2});
  std::sort(text.begin(), text.end());
  EXPECT_EQ(std::unique(text.begin(), text.end()), text.end());
}

// ln p of every next token.
Row naive_log_probabilities(const NaiveDecoder& naive, const Tokens& text) {
  Row z = naive.logits(text).back();
  double sum = 0;
  for (const double x : z) sum += std::exp(x);
  for (double& x : z) x -= std::log(sum);
  return z;
}

// With as many beams as tokens two steps of the search see every text.
TEST(Generation, FindsTheBestTextOfTwoTokensByBeams) {
  ThreadPool pool(2);
  const TinyShape shape{.vocabulary = 6};
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const TinyTensors tensors = tiny_tensors(shape, seed);
    const NaiveDecoder naive = NaiveDecoder::plain(shape, tensors);
    const TokenId stop = 5;
    const Row first = naive_log_probabilities(naive, {1, 2});
    double best = first[stop];
    Tokens best_text;
    for (TokenId a = 0; a < stop; ++a) {
      const Row second = naive_log_probabilities(naive, {1, 2, a});
      for (TokenId b = 0; b < shape.vocabulary; ++b) {
        const double mean = (first[a] + second[b]) / 2;
        if (mean <= best) continue;
        best = mean;
        best_text = b == stop ? Tokens{a} : Tokens{a, b};
      }
    }
    const auto result =
        generate(decoder_of(shape, tensors), Tokens{1, 2},
                 {.max_new_tokens = 2, .beams = 6, .stop = {stop}}, pool);
    EXPECT_EQ(result.tokens, best_text) << "seed " << seed;
  }
}

// Two beams stop at once; the third best start would win by its mean if it
// could go on, but was less likely than both when they stopped.
TEST(Generation, EndsTheBeamSearchWhenEveryBeamHasABetterEnd) {
  ThreadPool pool(1);
  MatrixF logits(kCycle, kCycle);
  logits(1, 0) = 10;
  logits(2, 0) = 9.99f;
  logits(3, 0) = 8.5f;
  for (std::size_t t = 3; t + 1 < kCycle; ++t) logits(t + 1, t) = 20;
  const auto result =
      generate(table_decoder(logits), Tokens{0},
               {.max_new_tokens = 8, .beams = 2, .stop = {1, 2}}, pool);
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.stop, StopReason::kStopToken);
  // With nothing to stop at, the second best start is followed to the end.
  const auto free = generate(table_decoder(logits), Tokens{0},
                             {.max_new_tokens = 8, .beams = 3}, pool);
  EXPECT_EQ(free.tokens, (Tokens{3, 4, 5, 6, 7, 8, 9, 10}));
}

TEST(Generation, IsNoWorseWithBeamsThanGreedy) {
  ThreadPool pool(2);
  const TinyShape shape;
  const TinyTensors tensors = tiny_tensors(shape, 9);
  const NaiveDecoder naive = NaiveDecoder::plain(shape, tensors);
  const Decoder decoder = decoder_of(shape, tensors);
  const auto log_probability = [&](const Tokens& tokens) {
    Tokens text = {3};
    double sum = 0;
    for (const TokenId token : tokens) {
      sum += naive_log_probabilities(naive, text)[token];
      text.push_back(token);
    }
    return sum;
  };
  const auto greedy = generate(decoder, Tokens{3}, {.max_new_tokens = 6}, pool);
  const auto beams =
      generate(decoder, Tokens{3}, {.max_new_tokens = 6, .beams = 8}, pool);
  ASSERT_EQ(beams.tokens.size(), 6u);
  EXPECT_GT(log_probability(beams.tokens), log_probability(greedy.tokens));
}

}  // namespace
}  // namespace llmpress
