#include "compress/pipeline/evaluation/evaluation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "compress/core/error.h"
#include "compress/model/model_source.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

EvaluationText text_of(std::size_t tokens) {
  EvaluationText text{.path = "t.txt", .bos = 1};
  for (std::size_t i = 0; i < tokens; ++i) {
    text.tokens.push_back(static_cast<TokenId>(i % 50 + 3));
  }
  return text;
}

TEST(PlanWindows, CutsTheTextAndDropsTheTail) {
  const auto windows = plan_windows(text_of(11), {.context = 4});
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[1].begin, 4u);
  EXPECT_EQ(windows[1].length, 4u);
  EXPECT_EQ(windows[1].score_from, 1u);
  EXPECT_FALSE(windows[1].bos_first);
}

TEST(PlanWindows, ScoresTheSecondHalfBehindBosAsLlamaCppDoes) {
  const auto windows = plan_windows(
      text_of(20), {.context = 8, .protocol = Protocol::kLlamaCpp});
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_TRUE(windows[0].bos_first);
  // n_ctx - 1 - n_ctx / 2 = 3 positions: 5, 6, 7.
  EXPECT_EQ(windows[0].score_from, 5u);
}

TEST(PlanWindows, ScoresEachPositionOnceWhenStrided) {
  const auto windows = plan_windows(
      text_of(23), {.context = 8, .protocol = Protocol::kStrided, .stride = 3});
  std::vector<int> scored(23, 0);
  for (const EvaluationWindow& w : windows) {
    for (std::size_t i = w.score_from; i < w.length; ++i) {
      ++scored[w.begin + i];
    }
  }
  EXPECT_EQ(scored[0], 0);
  for (std::size_t i = 1; i < scored.size(); ++i) EXPECT_EQ(scored[i], 1) << i;
}

TEST(PlanWindows, RefusesATextShorterThanOneWindow) {
  try {
    plan_windows(text_of(7), {.context = 8});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidInput);
    EXPECT_NE(std::string(e.what()).find("7 tokens"), std::string::npos);
  }
}

class ShippedModel : public testing::Test {
 protected:
  ShippedModel()
      : source_(open_model(shipped("tinystories-3.7m"))),
        decoder_(*source_.checkpoint),
        text_(load_evaluation_text(shipped("text/evaluation.txt"),
                                   *source_.tokenizer)),
        model_{.name = "base", .decoder = &decoder_} {}

  ModelSource source_;
  Decoder decoder_;
  EvaluationText text_;
  ModelUnderTest model_;
  EvaluateConfig config_{.context = 64, .max_windows = 4};
};

TEST_F(ShippedModel, DivergesFromItselfByNothing) {
  ThreadPool pool(2);
  const Comparison c =
      compare(model_, std::vector{model_}, text_, config_, pool);
  const Divergence& d = c.models[0].divergence;
  EXPECT_EQ(d.kl_mean, 0);
  EXPECT_EQ(d.kl_p99, 0);
  EXPECT_EQ(d.top1_agreement, 1);
  EXPECT_EQ(d.perplexity_ratio, 1);
  EXPECT_EQ(c.models[0].evaluation.nll, c.base.nll);
}

TEST_F(ShippedModel, PredictsItsOwnLanguageMuchBetterThanChance) {
  ThreadPool pool(2);
  const EvaluationResult r = evaluate(model_, text_, config_, pool);
  EXPECT_EQ(r.scored_tokens, 4u * 63u);
  EXPECT_EQ(r.windows, 4u);
  EXPECT_DOUBLE_EQ(r.perplexity, std::exp(r.nll));
  // Chance is the vocabulary's 2048; no model of stories is below 2.
  EXPECT_LT(r.perplexity, 2048 / 10);
  EXPECT_GT(r.perplexity, 2);
  EXPECT_GT(r.perplexity_stderr, 0);
}

TEST_F(ShippedModel, GivesTheSameNumbersAtAnyThreadCount) {
  ThreadPool one(1), three(3);
  EXPECT_EQ(evaluate(model_, text_, config_, one).nll,
            evaluate(model_, text_, config_, three).nll);
}

TEST_F(ShippedModel, GivesTheSameNumbersBlockByBlock) {
  ThreadPool pool(2);
  config_.max_windows = 100;  // more than run together
  const TemporaryDirectory scratch;
  const Decoder streamed(*source_.checkpoint, {.streamed = true});
  EXPECT_TRUE(streamed.blocks().empty());
  const ModelUnderTest model{
      .name = "base", .decoder = &streamed, .scratch = scratch.path()};
  const EvaluationResult wanted = evaluate(model_, text_, config_, pool);
  EXPECT_EQ(evaluate(model, text_, config_, pool).nll, wanted.nll);
  const Comparison c =
      compare(model_, std::vector{model, model}, text_, config_, pool);
  EXPECT_EQ(c.models[0].divergence.kl_max, 0);
  EXPECT_EQ(c.models[1].evaluation.nll, wanted.nll);
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST_F(ShippedModel, RunsForwardBlockByBlock) {
  ThreadPool pool(2);
  Decoder decoder(*source_.checkpoint, {.streamed = true});
  const Decoder moved = std::move(decoder);
  const std::vector<TokenId> tokens{1, 20, 300, 4};
  const Segment segment{.rows = tokens.size()};
  const MatrixF wanted = decoder_.forward(tokens, {&segment, 1}, pool);
  const MatrixF found = moved.forward(tokens, {&segment, 1}, pool);
  EXPECT_TRUE(std::ranges::equal(wanted.data(), found.data()));
}

TEST_F(ShippedModel, AQuantizedCacheCostsALittle) {
  ThreadPool pool(2);
  const double exact = evaluate(model_, text_, config_, pool).nll;
  const Decoder int8(*source_.checkpoint, {.kv = {KvType::kInt8}});
  const Decoder int4(*source_.checkpoint, {.kv = {KvType::kInt4}});
  const auto nll_of = [&](const Decoder& decoder) {
    return evaluate({.name = "kv", .decoder = &decoder}, text_, config_, pool)
        .nll;
  };
  EXPECT_NE(nll_of(int8), exact);
  EXPECT_NEAR(nll_of(int8), exact, 0.01);
  EXPECT_GT(std::abs(nll_of(int4) - exact), std::abs(nll_of(int8) - exact));
}

}  // namespace
}  // namespace llmpress
