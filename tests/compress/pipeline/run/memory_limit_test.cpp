#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "compress/core/error.h"
#include "compress/pipeline/evaluation/evaluation_need.h"
#include "compress/pipeline/evaluation/evaluation_text.h"
#include "compress/pipeline/run/kept_inputs.h"
#include "compress/pipeline/run/memory_model.h"
#include "compress/pipeline/run/resume_store.h"
#include "compress/pipeline/run/run.h"
#include "compress/surgery/structured_shape.h"
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
  // That a refusal names.
  std::uint64_t smallest(const Recipe& recipe) {
    const std::string message = refusal(recipe, 1 << 20);
    const std::size_t at = message.find(" MiB, the smallest");
    if (at == std::string::npos) {
      ADD_FAILURE() << message;
      return 0;
    }
    const std::size_t begin = message.rfind(' ', at - 1) + 1;
    return std::stoull(message.substr(begin, at - begin)) << 20;
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(MemoryLimit, ARefusalNamesTheSmallestLimitThatWouldDo) {
  const std::uint64_t limit = smallest(recipe());
  EXPECT_NE(refusal(recipe(), limit - (std::uint64_t{2} << 20)), "");
  EXPECT_EQ(refusal(recipe(), limit), "");
}

TEST_F(MemoryLimit, MayStandInTheRecipe) {
  EXPECT_NE(refusal(recipe("memory_limit: 1MiB\n"), 0), "");
  // The command line's goes first.
  EXPECT_EQ(refusal(recipe("memory_limit: 1MiB\n"), std::uint64_t{1} << 40),
            "");
}

TEST_F(MemoryLimit, EvaluatesBlockByBlockWhereModelsDoNotFit) {
  const std::string evaluate =
      "evaluate: {text: " + shipped("text/evaluation.txt").string() +
      ", context: 128, max_windows: 40}\n";
  const RunReport free = run_recipe(recipe(evaluate), {}, pool_);
  fs::remove_all(directory_.path() / "out");
  const RunReport held = run_recipe(
      recipe(evaluate), {.memory_limit = smallest(recipe(evaluate))}, pool_);
  EXPECT_TRUE(std::ranges::any_of(held.notes, [](const std::string& note) {
    return note.find("evaluation, block by block") != std::string::npos;
  }));
  EXPECT_EQ(held.base->nll, free.base->nll);
  EXPECT_EQ(held.variants[0].evaluation->nll, free.variants[0].evaluation->nll);
  EXPECT_EQ(held.variants[0].divergence->kl_mean,
            free.variants[0].divergence->kl_mean);
  EXPECT_FALSE(fs::exists(resume_path(directory_.path() / "out")));
}

// config.json of TinyLlama-1.1B's shape with so many blocks.
std::string llama_of(std::size_t layers) {
  return R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 2048,
      "intermediate_size": 5632, "num_hidden_layers": )" +
         std::to_string(layers) +
         R"(, "num_attention_heads": 32, "num_key_value_heads": 4,
      "hidden_act": "silu", "rms_norm_eps": 1e-05,
      "max_position_embeddings": 2048, "tie_word_embeddings": false})";
}

TEST(MemoryModel, StreamedEvaluationTakesABlockAndTheHeads) {
  const std::string config = llama_of(22);
  const Architecture arch = parse_architecture(config, "config.json");
  const std::size_t block = 44040192, ends = 2 * 32000 * 2048;
  const ModelSize stored{.weight_bytes = 2 * (22 * block + ends),
                         .weights = 22 * block + ends,
                         .linear_bytes = 2 * 22 * block,
                         .linear_weights = 22 * block};
  const EvaluationNeed one = evaluation_need(arch, stored, 1, 512, 100'000);
  const EvaluationNeed two = evaluation_need(arch, stored, 2, 512, 100'000);
  EXPECT_EQ(one.head, 2u * 32000 * 2048);
  EXPECT_EQ(two.loaded - one.loaded,
            stored.weight_bytes + kEvaluatedLogitRows * 32000 * 4);
  // A block and the states of a batch of 4096 tokens; the stream is kept of all.
  EXPECT_GT(one.streamed, one.head + 2 * block + 4096u * (2048 + 5632) * 4);
  EXPECT_LT(one.streamed, one.head + 2 * block + 4096u * 11 * 2048 * 4);
  EXPECT_EQ(two.scratch, 2u * 100'000 * 2048 * 4);
}

// What a run of the shape would hold, by the sizes of its matrices.
TEST(MemoryModel, CountsOneBlockAndNeverTheModel) {
  const auto need = [](std::size_t layers, std::size_t tokens) {
    const std::string config = llama_of(layers);
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
  // 8192 tokens of two values of the stream; one batch of 2048 stays. In memory
  // the stream and the inner width are kept.
  const std::size_t batch = std::size_t{2048} * 2 * 2048 * 4;
  const std::size_t inner = std::size_t{8192} * (2048 + 5632) * 4;
  EXPECT_EQ(four.scratch, 4 * batch);
  EXPECT_NEAR(static_cast<double>(four.in_memory - four.spilled),
              static_cast<double>(inner - batch),
              0.03 * static_cast<double>(inner));
  // Of so many tokens it would be too much.
  const MemoryNeed long_text = need(4, 65536);
  EXPECT_NEAR(static_cast<double>(long_text.spilled),
              static_cast<double>(four.spilled), 1);
  EXPECT_NEAR(static_cast<double>(long_text.in_memory - long_text.spilled),
              static_cast<double>(31 * batch),
              0.03 * static_cast<double>(31 * batch));
}

TEST(KeptInputs, AreRemadeWhereTheyAreWideAndTooMuch) {
  const Architecture arch = parse_architecture(llama_of(1), "config.json");
  const BlockSpec& block = arch.block(0);
  const std::size_t last = block.stages.size() - 1;  // down_proj's
  const std::size_t of_token = (2048 + 5632) * 4;
  const std::size_t fit = kKeptInputBytes / of_token;
  EXPECT_FALSE(KeptInputs(fit).remakes(block, last, arch));
  EXPECT_TRUE(KeptInputs(fit + 1).remakes(block, last, arch));
  EXPECT_TRUE(KeptInputs().remakes(block, last, arch));
  for (std::size_t s = 0; s < last; ++s) {
    EXPECT_FALSE(KeptInputs().remakes(block, s, arch)) << s;
  }
}

// Beside what runs of this shape took (VmHWM): two blocks, 4 sequences of 256
// tokens, rounded to nearest afterwards.
TEST(MemoryModel, CountsWhatStructuredPruningHolds) {
  const std::string config = llama_of(2);
  const Architecture arch = parse_architecture(config, "config.json");
  const std::size_t linears = 2 * 44040192, ends = 2 * 32000 * 2048;
  const auto need = [&](const std::string& prune) {
    const Recipe recipe = small_recipe(
        "[{prune: {" + prune + "}}, {quantize: {method: rtn}}]", "out");
    const StagePlan plan({}, recipe.stages);
    const Architecture reduced =
        planned_architecture(plan, config, "config.json");
    return static_cast<double>(
        memory_need({.plan = &plan,
                     .arch = &arch,
                     .reduced = &reduced,
                     .stored = {.weight_bytes = 2 * (linears + ends),
                                .weights = linears + ends,
                                .linear_bytes = 2 * linears,
                                .linear_weights = linears},
                     .largest_tensor = std::size_t{32000} * 2048 * 2,
                     .calibration = {.tokens = 1024, .sequence_tokens = 256},
                     .copies_in_files = true})
            .in_memory);
  };
  const std::pair<const char*, double> measured[] = {
      {"method: ffn, sparsity: 0.5", 1.000e9},
      {"method: ffn, sparsity: 0.1", 1.355e9},
      {"method: heads, sparsity: 0.5", 1.426e9},
      {"method: hidden, sparsity: 0.25", 1.541e9},
      {"method: depth, sparsity: 0.5", 1.451e9},
      {"method: ffn, sparsity: 0.5, importance: gradients", 2.210e9}};
  for (const auto& [prune, bytes] : measured) {
    EXPECT_NEAR(need(prune) / bytes, 1, 0.2) << prune;
  }
}

}  // namespace
}  // namespace llmpress
