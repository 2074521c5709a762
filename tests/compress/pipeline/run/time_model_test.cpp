#include "compress/pipeline/run/time_model.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/compress/pipeline/shipped_model.h"

namespace llmpress {
namespace {

// A Llama of two blocks of TinyLlama's shape.
Architecture two_blocks() {
  return parse_architecture(
      R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 2048,
      "intermediate_size": 5632, "num_hidden_layers": 2,
      "num_attention_heads": 32, "num_key_value_heads": 4,
      "hidden_act": "silu", "rms_norm_eps": 1e-05,
      "max_position_embeddings": 2048, "tie_word_embeddings": false})",
      "config.json");
}

RunWork work(const std::string& stages, std::size_t tokens) {
  const Architecture arch = two_blocks();
  const Recipe recipe = small_recipe(stages, "out");
  const StagePlan plan({}, recipe.stages);
  return work_of(plan, arch, tokens, 512, 438'000'000, 308'000'000, 46'000'000,
                 {});
}

constexpr double kBlock = 44040192;  // weights of a block's Linears
constexpr double kIn = 2048, kFfn = 5632;

TEST(TimeModel, CountsPassesMomentsAndSolving) {
  const double tokens = 8192;
  const RunWork gptq = work("[{quantize: {method: gptq}}]", 8192);
  EXPECT_EQ(gptq.batches, 4u);
  // The stage in front of the MLP's wide input runs a second time.
  const double gate_and_up = 2 * kIn * kFfn;
  const double passes = 2 * tokens * (kBlock + gate_and_up);
  const double moments = tokens * (3 * kIn * kIn + kFfn * kFfn);
  EXPECT_NEAR(gptq.passes, 2 * (passes + moments), 1);
  ASSERT_EQ(gptq.solves.size(), 8u);
  EXPECT_EQ(gptq.solves[0].linears.size(), 3u);  // q, k and v
  EXPECT_NEAR(gptq.solves[3].inverse, 2.0 / 3 * kFfn * kFfn * kFfn, 1);
  EXPECT_NEAR(gptq.solves[3].linears[0].solve, kIn * kFfn * kFfn, 1);

  const RunWork rtn = work("[{quantize: {method: rtn}}]", 0);
  EXPECT_EQ(rtn.passes, 0);
  EXPECT_TRUE(rtn.solves.empty());
  EXPECT_NEAR(rtn.weights, 2 * kBlock, 1);
  EXPECT_GT(work("[{quantize: {method: awq}}]", 8192).searches, 0);
}

// What ranks of a measured run sent: 504 to 535 MB of two, 631 to 759 of four.
TEST(TimeModel, TrafficIsThatOfMomentsInverseAndPackedLinears) {
  const RunWork gptq = work("[{quantize: {method: gptq}}]", 8192);
  const Machine machine{.products = 2e11, .threads = 2};
  EXPECT_EQ(cost_on(gptq, machine, 1).traffic, 0);
  EXPECT_NEAR(cost_on(gptq, machine, 2).traffic, 519e6, 26e6);
  EXPECT_NEAR(cost_on(gptq, machine, 4).traffic, 692e6, 35e6);
  EXPECT_EQ(cost_on(work("[{quantize: {method: rtn}}]", 0), machine, 4).traffic,
            0);
}

TEST(TimeModel, MoreMachinesTakeLessUntilNoBatchIsLeft) {
  const RunWork gptq = work("[{quantize: {method: gptq}}]", 8192);
  const Machine machine{.products = 2e11, .threads = 2, .network = 1e12};
  const double one = cost_on(gptq, machine, 1).seconds;
  const double two = cost_on(gptq, machine, 2).seconds;
  const double four = cost_on(gptq, machine, 4).seconds;
  EXPECT_LT(two, one);
  EXPECT_LT(four, two);
  EXPECT_GT(two, one / 2);
  // Solving goes on getting faster, and shards may be more than batches.
  RunWork passes = gptq;
  passes.solves.clear();
  passes.shards = 1;
  EXPECT_NEAR(cost_on(passes, machine, 8).seconds,
              cost_on(passes, machine, 4).seconds, 0.01 * four);
  RunWork sharded = passes;
  sharded.shards = 8;
  EXPECT_NEAR(cost_on(passes, machine, 8).seconds -
                  cost_on(sharded, machine, 8).seconds,
              passes.written * 7 / 8 / machine.disk, 1e-6);
}

}  // namespace
}  // namespace llmpress
