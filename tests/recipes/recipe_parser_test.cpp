#include "recipes/recipe_parser.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/recipes/parse_failure.h"

namespace llmpress {
namespace {

using Path = std::filesystem::path;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

constexpr const char* kWhole = R"(model: m
calibration:
  text: c.txt
  samples: 16
  sequence_length: 64
  sampling: sequential
  seed: 7
stages:
  - merge_lora: {adapter: a, scale: 0.5}
  - prune: {method: sparsegpt, sparsity: 0.5, pattern: "2:4"}
  - smooth: {method: awq, ratios: 10}
  - rotate: {seed: 3, online: true}
  - inject_outliers: {factor: 60, channels: 2}
  - quantize:
      method: gptq
      scheme: W4A16
output: {path: /tmp/out, format: hdf5, max_shard_size: 1GB}
evaluate:
  text: ../e.txt
  context: 128
  protocol: strided
  stride: 32
  max_windows: 5
  kv_cache: {type: int8}
report: r
)";

TEST(RecipeParser, ReadsEverySectionOfARecipe) {
  const Recipe r = parse_recipe(kWhole, "/data/recipes/r.yaml");
  EXPECT_EQ(r.model, "/data/recipes/m");
  EXPECT_EQ(r.calibration->text, "/data/recipes/c.txt");
  EXPECT_EQ(r.calibration->samples, 16u);
  EXPECT_EQ(r.calibration->sequence_length, 64u);
  EXPECT_EQ(r.calibration->sampling, Sampling::kSequential);
  EXPECT_EQ(r.calibration->seed, 7u);
  ASSERT_EQ(r.stages.size(), 6u);
  const auto& lora = std::get<MergeLoraStage>(r.stages[0]);
  EXPECT_EQ(lora.adapter, "/data/recipes/a");
  EXPECT_EQ(lora.scale, 0.5);
  const auto& prune = std::get<PruneStage>(r.stages[1]).config;
  EXPECT_EQ(prune.method, PruneMethod::kSparseGpt);
  EXPECT_EQ(prune.keep, 2u);
  EXPECT_EQ(prune.of, 4u);
  const auto& smooth = std::get<SmoothStage>(r.stages[2]);
  EXPECT_EQ(smooth.config.method, "awq");
  EXPECT_EQ(smooth.config.awq.ratios, 10u);
  EXPECT_FALSE(smooth.weights.has_value());
  EXPECT_EQ(std::get<RotateStage>(r.stages[3]).seed, 3u);
  EXPECT_TRUE(std::get<RotateStage>(r.stages[3]).online);
  EXPECT_EQ(std::get<InjectOutliersStage>(r.stages[4]).factor, 60);
  EXPECT_EQ(stage_name(r.stages[5]), "quantize");
  EXPECT_EQ(position_of(r.stages[5]).to_string(), "/data/recipes/r.yaml:15:7");
  EXPECT_EQ(r.output->path, "/tmp/out");
  EXPECT_EQ(r.output->format, "hdf5");
  EXPECT_EQ(r.output->max_shard_size, 1'000'000'000u);
  EXPECT_EQ(r.evaluate->text, "/data/e.txt");
  EXPECT_EQ(r.evaluate->protocol, Protocol::kStrided);
  EXPECT_EQ(r.evaluate->stride, 32u);
  EXPECT_EQ(r.evaluate->max_windows, 5u);
  EXPECT_EQ(r.evaluate->kv_cache, KvCacheType::kInt8);
  EXPECT_EQ(*r.report, "/data/recipes/r");
}

TEST(RecipeParser, FillsInTheDocumentedDefaults) {
  const Recipe r = parse_recipe(
      "calibration: {text: c}\nevaluate: {text: e}\noutput: {path: o}\n", "r");
  EXPECT_EQ(r.calibration->samples, 128u);
  EXPECT_EQ(r.calibration->sequence_length, 2048u);
  EXPECT_EQ(r.calibration->sampling, Sampling::kRandom);
  EXPECT_EQ(r.evaluate->context, 2048u);
  EXPECT_EQ(r.evaluate->protocol, Protocol::kWindows);
  EXPECT_EQ(r.output->format, "compressed-tensors");
  EXPECT_EQ(r.output->max_shard_size, 5'000'000'000u);
  EXPECT_TRUE(r.stages.empty());
}

TEST(RecipeParser, TheStrideIsAtMostTheContext) {
  const Recipe r = parse_recipe(
      "evaluate: {text: e, context: 100, protocol: strided}\n", "r");
  EXPECT_EQ(r.evaluate->stride, 100u);
  EXPECT_TRUE(has(refusal("evaluate: {text: e, context: 100, protocol: "
                          "strided, stride: 101}\n"),
                  "from 1 to 100"));
  EXPECT_TRUE(
      has(refusal("evaluate: {text: e, stride: 5}\n"), "protocol: strided"));
}

TEST(RecipeParser, APatternSaysTheSparsity) {
  const Recipe r = parse_recipe(
      "calibration: {text: c}\nstages: [{prune: {pattern: '1:4'}}]\n", "r");
  EXPECT_EQ(std::get<PruneStage>(r.stages[0]).config.sparsity, 0.75);
}

TEST(RecipeParser, AMisspeltKeyIsNamedWithItsPlaceAndItsNeighbour) {
  EXPECT_EQ(refusal(quantizing("weights: {bitz: 4}")),
            "recipe.yaml:3:26: unknown key 'bitz' in 'weights'; did you mean "
            "'bits'?");
  EXPECT_EQ(refusal("modle: x\n"),
            "recipe.yaml:1:1: unknown key 'modle' at the top level; did you "
            "mean 'model'?");
  EXPECT_TRUE(
      has(refusal("stages:\n  - quantise: {}\n"), "did you mean 'quantize'?"));
  EXPECT_TRUE(has(refusal("zzzz: 1\n"), "known are name, description"));
}

TEST(RecipeParser, AMisplacedKeyIsSentHome) {
  EXPECT_EQ(
      refusal(quantizing("bits: 4")),
      "recipe.yaml:3:16: 'bits' does not belong in 'quantize'; it belongs "
      "in 'weights' or in 'input'");
  EXPECT_TRUE(has(refusal("samples: 4\n"), "it belongs in 'calibration'"));
  EXPECT_TRUE(has(refusal("quantize: {}\n"), "in an entry of 'stages'"));
}

TEST(RecipeParser, ARepeatedKeyIsRefused) {
  EXPECT_EQ(refusal("model: a\nmodel: b\n"),
            "recipe.yaml:2:1: key 'model' is given twice; first at line 1");
}

TEST(RecipeParser, ValuesOfAnotherTypeAreRefused) {
  const auto calibration = [](const std::string& body) {
    return refusal("calibration: {text: c, " + body + "}\n");
  };
  EXPECT_EQ(calibration("samples: many"),
            "recipe.yaml:1:33: 'samples' in 'calibration' is 'many'; wants an "
            "integer from 1 to 16777216");
  EXPECT_TRUE(has(calibration("samples: '128'"), "the string '128'"));
  EXPECT_TRUE(has(calibration("samples: 0"), "from 1"));
  EXPECT_TRUE(has(calibration("samples: -1"), "from 1"));
  EXPECT_TRUE(has(calibration("samples: 99999999999999999999"), "from 1"));
  EXPECT_TRUE(has(calibration("samples: [1]"), "a list"));
  EXPECT_TRUE(has(calibration("sampling: rnadom"), "did you mean 'random'?"));
  EXPECT_TRUE(has(calibration("seed: 1.5"), "an integer"));
  EXPECT_TRUE(has(refusal("calibration: c.txt\n"), "wants keys with values"));
  EXPECT_TRUE(has(refusal("calibration:\n"), "empty"));
  EXPECT_TRUE(has(refusal("calibration: {samples: 3}\n"), "needs 'text'"));
  EXPECT_TRUE(has(refusal("model: [a]\n"), "wants a string"));
  EXPECT_TRUE(has(refusal("model: ''\n"), "empty"));
  EXPECT_TRUE(has(refusal("stages: {quantize: {}}\n"), "wants a list"));
  EXPECT_TRUE(has(refusal("stages: [quantize]\n"), "wants keys"));
  EXPECT_TRUE(has(refusal("stages: [{rotate: {}, quantize: {}}]\n"),
                  "'rotate' and 'quantize'"));
  EXPECT_TRUE(
      has(refusal("stages: [{rotate: {online: yes}}]\n"), "true or false"));
  EXPECT_TRUE(has(refusal("stages: [{inject_outliers: {factor: .nan}}]\n"),
                  "a number"));
  EXPECT_TRUE(
      has(refusal("stages: [{inject_outliers: {factor: nan}}]\n"), "a number"));
  EXPECT_TRUE(has(refusal(""), "a recipe is empty"));
  EXPECT_TRUE(has(refusal("- a\n"), "a recipe is a list"));
}

TEST(RecipeParser, SizesInBytesHaveUnits) {
  const auto size = [](const std::string& text) {
    return parse_recipe("output: {path: o, max_shard_size: " + text + "}\n",
                        "r")
        .output->max_shard_size;
  };
  EXPECT_EQ(size("5GB"), 5'000'000'000u);
  EXPECT_EQ(size("1.5 GiB"), 1'610'612'736u);
  EXPECT_EQ(size("123"), 123u);
  EXPECT_EQ(size("10KB"), 10'000u);
  for (const char* wrong : {"0", "-1", "5 cats", "GB", "1e30GB", "nan", "''"}) {
    EXPECT_TRUE(has(refusal(std::string("output: {path: o, max_shard_size: ") +
                            wrong + "}\n"),
                    "number of bytes"))
        << wrong;
  }
}

TEST(RecipeParser, PruningKeysAreCheckedAgainstTheMethod) {
  const auto prune = [](const std::string& body) {
    return refusal("calibration: {text: c}\nstages: [{prune: {" + body +
                   "}}]\n");
  };
  EXPECT_TRUE(has(prune("sparsity: 1.0"), "0.999"));
  EXPECT_TRUE(has(prune("pattern: '4:4'"), "n:m"));
  EXPECT_TRUE(has(prune("pattern: '0:4'"), "n:m"));
  EXPECT_TRUE(has(prune("pattern: '2of4'"), "n:m"));
  EXPECT_TRUE(has(prune("pattern: '2:4', sparsity: 0.7"), "contradicts"));
  EXPECT_TRUE(has(prune("allocation: owl, pattern: '2:4'"), "owl"));
  EXPECT_TRUE(has(prune("owl_lambda: 0.1"), "allocation: owl"));
  EXPECT_TRUE(has(prune("method: ffn, pattern: '2:4'"), "method 'ffn'"));
  EXPECT_TRUE(has(prune("method: wanda, heal: true"), "method 'wanda'"));
  EXPECT_TRUE(has(prune("method: kv_heads"), "needs 'kv_heads'"));
  EXPECT_TRUE(has(prune("method: experts, heal: true"), "method 'experts'"));
  EXPECT_TRUE(
      has(prune("method: experts, damping_fraction: 1"), "method 'experts'"));
  EXPECT_TRUE(
      has(prune("method: experts, importance: weights"), "method 'experts'"));
  EXPECT_TRUE(
      has(prune("method: ffn, expert_importance: mass"), "method 'ffn'"));
  EXPECT_TRUE(has(prune("method: sparsegbt"), "did you mean 'sparsegpt'?"));
}

TEST(RecipeParser, AStageThatLearnsNeedsCalibrationText) {
  EXPECT_EQ(refusal("stages:\n  - quantize: {method: gptq}\n"),
            "recipe.yaml:2:15: 'quantize' learns from calibration data; add a "
            "'calibration' section with 'text'");
  EXPECT_NE(refusal("stages: [{prune: {method: wanda}}]\n"), "");
  EXPECT_NE(refusal("stages: [{quantize: {scheme: FP8}}]\n"), "")
      << "static activation scales";
  EXPECT_NO_THROW(parse_recipe("stages: [{quantize: {method: rtn}}]\n", "r"));
  EXPECT_NO_THROW(
      parse_recipe("stages: [{prune: {method: magnitude}}]\n", "r"));
}

TEST(RecipeParser, VariantsShareTheOutputUnderTheirNames) {
  const Recipe r = parse_recipe(
      "output: {path: /o, format: hdf5}\n"
      "variants:\n"
      "  - {name: a, stages: [{quantize: {}}]}\n"
      "  - {name: b, output: {path: /elsewhere}}\n",
      "r");
  ASSERT_EQ(r.variants.size(), 2u);
  EXPECT_FALSE(r.output.has_value());
  EXPECT_EQ(r.variants[0].output->path, "/o/a");
  EXPECT_EQ(r.variants[0].output->format, "hdf5");
  EXPECT_EQ(r.variants[1].output->path, "/elsewhere");
  EXPECT_EQ(r.variants[1].output->format, "hdf5");
}

TEST(RecipeParser, VariantsHaveNamesOfTheirOwn) {
  EXPECT_TRUE(
      has(refusal("variants: [{name: a}, {name: a}]\n"), "given twice"));
  EXPECT_TRUE(has(refusal("variants: [{name: ../a}]\n"), "letters"));
  EXPECT_TRUE(has(refusal("variants: [{stages: []}]\n"), "needs 'name'"));
  EXPECT_TRUE(has(refusal("variants: []\n"), "an empty list"));
}

TEST(RecipeParser, AnOutputHasAPath) {
  EXPECT_TRUE(has(refusal("output: {format: hdf5}\n"), "needs 'path'"));
}

TEST(RecipeParser, TheCommandLineReplacesModelAndOutput) {
  const Recipe one = parse_recipe("output: {format: hdf5}\n", "dir/r.yaml",
                                  {.model = "m", .output = "o"});
  EXPECT_EQ(one.model, std::filesystem::current_path() / "m");
  EXPECT_EQ(one.output->path, std::filesystem::current_path() / "o");
  EXPECT_EQ(one.output->format, "hdf5");
  const Recipe many =
      parse_recipe("variants: [{name: a}, {name: b, output: {path: z}}]\n", "r",
                   {.output = "/o"});
  EXPECT_EQ(many.variants[0].output->path, "/o/a");
  EXPECT_EQ(many.variants[1].output->path, "/o/b");
}

TEST(RecipeParser, OverridesActBeforeTheRecipeIsChecked) {
  const RecipeOverrides overrides{.set = {"stages.0.quantize.weights.bits=3",
                                          "calibration.samples=8",
                                          "evaluate.text=/e.txt"}};
  const Recipe r = parse_recipe(quantizing("method: gptq"), "r", overrides);
  EXPECT_EQ(std::get<QuantizeStage>(r.stages[0]).config.weights.bits, 3);
  EXPECT_EQ(r.calibration->samples, 8u);
  EXPECT_EQ(r.evaluate->text, "/e.txt");
}

TEST(RecipeParser, AnOverrideIsBlamedForItsOwnMistake) {
  EXPECT_EQ(refusal(quantizing(""), {"stages.0.quantize.weights.bitz=3"}),
            "--set stages.0.quantize.weights.bitz=3: unknown key 'bitz' in "
            "'weights'; did you mean 'bits'?");
  EXPECT_EQ(refusal(quantizing(""), {"stages.0.quantize.weights.bits=x"}),
            "--set stages.0.quantize.weights.bits=x: 'bits' in 'weights' is "
            "'x'; wants an integer from 2 to 8");
  EXPECT_TRUE(has(refusal(quantizing(""), {"stages.3.quantize.method=rtn"}),
                  "no entry 3 in a list of 1"));
}

TEST(RecipeParser, AFileThatCannotBeReadIsAnIoError) {
  for (const char* path : {"/nonexistent/recipe.yaml", "/tmp"}) {
    try {
      load_recipe(path);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
    }
  }
}

}  // namespace
}  // namespace llmpress
