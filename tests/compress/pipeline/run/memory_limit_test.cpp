#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "compress/core/error.h"
#include "compress/pipeline/run/memory_model.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

struct LimitedCase {
  const char* name;
  const char* stages;
};

class LimitedRun : public testing::TestWithParam<LimitedCase> {
 protected:
  // More tokens than a batch has.
  Recipe recipe(const std::string& output) {
    Recipe recipe = small_recipe(GetParam().stages, path(output));
    recipe.calibration->samples = 40;
    return recipe;
  }
  std::size_t peak(const RunOptions& options) {
    return plan_recipe(recipe("planned"), options, pool_)
        .variants[0]
        .peak_memory_bytes;
  }
  fs::path path(const std::string& name) { return directory_.path() / name; }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_P(LimitedRun, WritesTheSameBytesWithItsStatesInAFile) {
  const std::size_t in_memory = peak({});
  const RunOptions limited{.memory_limit = in_memory - 1,
                           .scratch = path("scratch")};
  const std::size_t spilled = peak(limited);
  EXPECT_LT(spilled, in_memory);

  run_recipe(recipe("free"), {}, pool_);
  const RunReport report = run_recipe(recipe("limited"), limited, pool_);
  auto free = files_of(path("free")), held = files_of(path("limited"));
  free.erase("recipe.yaml");  // holds the output's own path
  held.erase("recipe.yaml");
  EXPECT_EQ(free, held);
  EXPECT_TRUE(std::ranges::any_of(report.notes, [&](const std::string& note) {
    return note.find(path("scratch").string()) != std::string::npos;
  }));
  EXPECT_TRUE(fs::is_empty(path("scratch")));
}

INSTANTIATE_TEST_SUITE_P(
    Methods, LimitedRun,
    testing::Values(
        LimitedCase{"gptq", "[{quantize: {method: gptq, act_order: true}}]"},
        LimitedCase{"gptaq",
                    "[{quantize: {method: gptq, "
                    "asymmetric_calibration: true}}]"},
        LimitedCase{"awq", "[{quantize: {method: awq}}]"},
        LimitedCase{"autoround",
                    "[{quantize: {method: autoround, autoround: "
                    "{iterations: 2}}}]"},
        LimitedCase{"owl",
                    "[{prune: {method: sparsegpt, sparsity: 0.5, "
                    "allocation: owl}}]"}),
    [](const auto& tested) { return std::string(tested.param.name); });

class MemoryLimit : public testing::Test {
 protected:
  Recipe recipe(const std::string& more = "") {
    Recipe recipe = small_recipe("[{quantize: {method: gptq}}]",
                                 directory_.path() / "out", more);
    recipe.calibration->samples = 40;
    return recipe;
  }
  std::string refusal(const Recipe& recipe, std::uint64_t limit) {
    try {
      run_recipe(recipe, {.memory_limit = limit}, pool_);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kResource);
      return e.what();
    }
    return "";
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(MemoryLimit, ARefusalNamesTheSmallestLimitThatWouldDo) {
  const std::string message = refusal(recipe(), 1 << 20);
  const std::size_t at = message.find(" MiB, the smallest");
  ASSERT_NE(at, std::string::npos) << message;
  const std::size_t begin = message.rfind(' ', at - 1) + 1;
  const std::uint64_t smallest = std::stoull(message.substr(begin, at - begin))
                                 << 20;
  EXPECT_NE(refusal(recipe(), smallest - (std::uint64_t{2} << 20)), "");
  EXPECT_EQ(refusal(recipe(), smallest), "");
}

TEST_F(MemoryLimit, MayStandInTheRecipe) {
  EXPECT_NE(refusal(recipe("memory_limit: 1MiB\n"), 0), "");
  // The command line's goes first.
  EXPECT_EQ(refusal(recipe("memory_limit: 1MiB\n"), std::uint64_t{1} << 40),
            "");
}

// What a run of the shape would hold, by the sizes of its matrices.
TEST(MemoryModel, CountsOneBlockAndNeverTheModel) {
  const auto need = [](std::size_t layers, std::size_t tokens) {
    const std::string config =
        R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 2048,
        "intermediate_size": 5632, "num_hidden_layers": )" +
        std::to_string(layers) +
        R"(, "num_attention_heads": 32, "num_key_value_heads": 4,
        "hidden_act": "silu", "rms_norm_eps": 1e-05,
        "max_position_embeddings": 2048, "tie_word_embeddings": false})";
    const Architecture arch = parse_architecture(config, "config.json");
    const Recipe recipe = small_recipe("[{quantize: {method: gptq}}]", "out");
    const StagePlan plan({}, recipe.stages);
    const std::size_t of_block = 44040192;
    return memory_need(
        {.plan = &plan,
         .arch = &arch,
         .stored = {.weight_bytes = 2 * of_block * layers,
                    .weights = of_block * layers,
                    .linear_bytes = 2 * of_block * layers,
                    .linear_weights = of_block * layers},
         .largest_tensor = std::size_t{32000} * 2048 * 2,
         .calibration = {.tokens = tokens, .sequence_tokens = 512}});
  };
  const MemoryNeed four = need(4, 8192), many = need(32, 8192);
  EXPECT_EQ(four.in_memory, many.in_memory);
  EXPECT_EQ(four.spilled, many.spilled);
  // Of the widest stage: its second moment, the inverse, W and what is solved.
  const std::size_t moment = std::size_t{5632} * 5632 * 4;
  const std::size_t weight = std::size_t{5632} * 2048 * 4;
  EXPECT_GT(four.spilled, 2 * moment + 2 * weight);
  EXPECT_LT(four.spilled, 2 * moment + 9 * weight);
  // 8192 tokens of two values of the stream; one batch of 2048 stays.
  const std::size_t states = std::size_t{8192} * 2 * 2048 * 4;
  EXPECT_EQ(four.scratch, states);
  EXPECT_NEAR(static_cast<double>(four.in_memory - four.spilled),
              0.75 * static_cast<double>(states),
              0.03 * static_cast<double>(states));
  EXPECT_NEAR(static_cast<double>(need(4, 65536).spilled),
              static_cast<double>(four.spilled), 1);
}

}  // namespace
}  // namespace llmpress
