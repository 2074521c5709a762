#include "compress/pipeline/run/output_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "compress/core/error.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// 96 divides none of the shipped model's widths of 256, but its 768.
const std::string kRagged =
    "[{quantize: {method: rtn, weights: {bits: 4, group_size: 96, symmetric: "
    "true}}}]";

class OutputChecks : public testing::Test {
 protected:
  Recipe recipe(const std::string& stages, const std::string& incompatible,
                const std::string& format = "compressed-tensors") {
    Recipe recipe = small_recipe(stages, path("out"));
    recipe.output->format = format;
    recipe.output->incompatible =
        incompatible == "refuse"  ? Incompatible::kRefuse
        : incompatible == "skip"  ? Incompatible::kSkip
        : incompatible == "adapt" ? Incompatible::kAdapt
                                  : Incompatible::kOwn;
    return recipe;
  }

  PlannedVariant plan(const Recipe& recipe) {
    return plan_recipe(recipe, {}, pool_).variants.at(0);
  }

  // What run and plan say alike; "" if they go through.
  std::string refusal(const Recipe& recipe, const RunOptions& options = {}) {
    std::string planned, ran;
    try {
      (void)plan_recipe(recipe, options, pool_);
    } catch (const Error& e) {
      planned = e.what();
    }
    try {
      (void)run_recipe(recipe, options, pool_);
    } catch (const Error& e) {
      ran = e.what();
    }
    EXPECT_EQ(planned, ran);
    EXPECT_FALSE(fs::exists(path("out.resume")));
    return ran;
  }

  std::string becomes(const PlannedVariant& plan, const std::string& name) {
    const auto at = std::ranges::find(plan.layers, name, &PlannedLayer::name);
    return at == plan.layers.end() ? "" : at->becomes;
  }

  fs::path path(const std::string& name) { return directory_.path() / name; }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kDown = "model.layers.3.mlp.down_proj";

TEST_F(OutputChecks, WarnsOfWhatOnlyLlmpressLoadsAndWritesItAsOurs) {
  const Recipe own = recipe(kRagged, "llmpress");
  const PlannedVariant planned = plan(own);
  ASSERT_EQ(planned.warnings.size(), 1u);  // one line a reason
  EXPECT_NE(planned.warnings[0].find("and 23 more"), std::string::npos)
      << planned.warnings[0];
}

TEST_F(OutputChecks, RefusesWhatNoLoaderTakesIfTheRecipeSaysSo) {
  const std::string message = refusal(recipe(kRagged, "refuse"));
  EXPECT_NE(message.find(kQ), std::string::npos) << message;
  EXPECT_NE(message.find("does not divide"), std::string::npos) << message;
}

TEST_F(OutputChecks, LeavesALinearOrTakesSmallerGroups) {
  const PlannedVariant skipped = plan(recipe(kRagged, "skip"));
  EXPECT_EQ(becomes(skipped, kQ), "f32");
  EXPECT_EQ(becomes(skipped, kDown), "int4 g96 sym");
  const PlannedVariant adapted = plan(recipe(kRagged, "adapt"));
  EXPECT_EQ(becomes(adapted, kQ), "int4 g32 sym");
  EXPECT_EQ(becomes(adapted, kDown), "int4 g96 sym");
  EXPECT_FALSE(adapted.warnings.empty());
}

TEST_F(OutputChecks, RunsWhatItPlanned) {
  const RunReport report = run_recipe(recipe(kRagged, "adapt"), {}, pool_);
  EXPECT_EQ(report.variants[0].layers[0].format, "int4 g32 sym");
  const std::string config = read_file(path("out") / "config.json");
  EXPECT_EQ(config.find("\"llmpress\""), std::string::npos);
  EXPECT_FALSE(report.variants[0].notes.empty());
}

TEST_F(OutputChecks, FindsBeforeWorkWhatTheFormatCannotHold) {
  const std::string message = refusal(recipe(kRagged, "", "safetensors"));
  EXPECT_NE(message.find("cannot be stored as plain safetensors"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("test.yaml"), std::string::npos) << message;
  EXPECT_NE(refusal(recipe(kRagged, "", "bitsandbytes")), "");
}

TEST_F(OutputChecks, PlanKnowsTheMemoryLimitAndMissingCalibration) {
  const std::string gptq =
      "[{quantize: {method: gptq, weights: {bits: 4, group_size: 32}}}]";
  EXPECT_NE(refusal(recipe(gptq, ""), {.memory_limit = 1 << 20}), "");
  Recipe without = recipe(gptq, "");
  without.calibration.reset();
  EXPECT_NE(refusal(without).find("needs calibration"), std::string::npos);
}

TEST_F(OutputChecks, SaysThatVllmRefusesFusedLinearsOfDifferentSchemes) {
  const auto warned = [&](const std::string& ignore) {
    const PlannedVariant planned = plan(
        recipe("[{quantize: {method: rtn, weights: {bits: 4, group_size: 32, "
               "symmetric: true}, ignore: [" +
                   ignore + "]}}]",
               ""));
    return std::ranges::any_of(planned.warnings, [](const std::string& w) {
      return w.find("vLLM fuses") != std::string::npos;
    });
  };
  EXPECT_TRUE(warned("'re:.*q_proj'"));
  EXPECT_TRUE(warned("'re:.*up_proj'"));
  EXPECT_FALSE(warned("'re:.*(q|k|v)_proj'"));
  EXPECT_FALSE(warned("'re:.*o_proj'"));
}

// What `plan` says of transformers, of a golden and its stages.
TEST_F(OutputChecks, SayWhatTransformersDoesNotLoadOfAFamily) {
  const auto warnings = [&](const std::string& golden,
                            const std::string& stages) {
    Recipe family = recipe(stages, "");
    family.model =
        fs::path(source_dir()) / "tests/compress/model/goldens" / golden;
    family.calibration.reset();
    std::string all;
    for (const std::string& line : plan(family).warnings) all += line + "\n";
    return all;
  };
  const std::string w4 =
      "[{quantize: {method: rtn, weights: {bits: 4, group_size: 8, symmetric: "
      "true}";
  const std::string fp8 =
      "[{quantize: {method: rtn, weights: {type: fp8, group_size: -1}";
  const std::string experts = "'re:.*\\.experts\\..*'";
  EXPECT_NE(warnings("gpt2", w4 + "}}]").find("Conv1D"), std::string::npos);
  EXPECT_NE(warnings("falcon", w4 + "}}]").find("dequantize=True"),
            std::string::npos);
  EXPECT_EQ(warnings("falcon", fp8 + "}}]").find("transformers"),
            std::string::npos);
  for (const char* stacked : {"gpt_oss", "granitemoehybrid"}) {
    EXPECT_NE(warnings(stacked, w4 + "}}]").find("as one stack"),
              std::string::npos);
    EXPECT_EQ(warnings(stacked, w4 + ", ignore: [" + experts + ", lm_head]}}]")
                  .find("transformers"),
              std::string::npos);
  }
  EXPECT_EQ(warnings("mixtral", w4 + "}}]").find("transformers"),
            std::string::npos);
  EXPECT_NE(warnings("mixtral", w4 + ", ignore: [" + experts + ", lm_head]}}]")
                .find("in plain numbers beside packed integers"),
            std::string::npos);
  EXPECT_EQ(warnings("mixtral", fp8 + ", ignore: [" + experts + ", lm_head]}}]")
                .find("transformers"),
            std::string::npos);
  EXPECT_NE(warnings("mixtral", w4 + ", targets: ['re:.*layers\\.0\\.']}}, " +
                                    fp8.substr(1) +
                                    ", ignore: ['re:.*layers\\.0"
                                    "\\.', lm_head]}}]")
                .find("all experts by one scheme"),
            std::string::npos);
}

TEST_F(OutputChecks, AutoChoosesFusedLinearsTogether) {
  const RunReport report =
      run_recipe(recipe("[{quantize: {method: auto, target_bits: 4.2, weights: "
                        "{group_size: 32, symmetric: true}}}]",
                        ""),
                 {}, pool_);
  const auto format_of = [&](std::size_t layer, const char* linear) {
    const std::string name =
        "model.layers." + std::to_string(layer) + "." + linear;
    const auto& layers = report.variants[0].layers;
    return std::ranges::find(layers, name, &LayerReport::name)->format;
  };
  std::set<std::string> formats;
  for (std::size_t layer = 0; layer < 4; ++layer) {
    const std::string q = format_of(layer, "self_attn.q_proj");
    EXPECT_EQ(format_of(layer, "self_attn.k_proj"), q);
    EXPECT_EQ(format_of(layer, "self_attn.v_proj"), q);
    EXPECT_EQ(format_of(layer, "mlp.gate_proj"),
              format_of(layer, "mlp.up_proj"));
    formats.insert({q, format_of(layer, "mlp.up_proj"),
                    format_of(layer, "mlp.down_proj")});
  }
  EXPECT_GT(formats.size(), 1u) << "nothing was chosen";
}

}  // namespace
}  // namespace llmpress
