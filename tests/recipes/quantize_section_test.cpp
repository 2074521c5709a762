#include <gtest/gtest.h>

#include <string>

#include "quantizers/method.h"
#include "recipes/schemes.h"
#include "tests/recipes/parse_failure.h"

namespace llmpress {
namespace {

using Kind = ActivationQuant::Kind;
using Range = ActivationQuant::Range;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(QuantizeSection, SaysNothingAndMeansFourBitsInGroupsOf128) {
  const QuantizeStage stage = quantize_stage("");
  EXPECT_EQ(stage.config.method, "rtn");
  EXPECT_EQ(stage.config.weights, WeightScheme{});
  EXPECT_EQ(stage.config.input, ActivationQuant{});
  EXPECT_EQ(stage.layers.targets, std::vector<std::string>{"Linear"});
}

TEST(QuantizeSection, APresetIsOverriddenByTheKeysBelowIt) {
  const QuantizeStage stage = quantize_stage(
      "method: gptq, scheme: W4A16, weights: {type: int, bits: 3, "
      "symmetric: false}, act_order: true, targets: ['re:.*proj']");
  EXPECT_EQ(stage.scheme, "W4A16");
  EXPECT_EQ(stage.config.weights.bits, 3);
  EXPECT_EQ(stage.config.weights.group_size, 128);
  EXPECT_FALSE(stage.config.weights.symmetric);
  EXPECT_TRUE(stage.config.gptq.act_order);
  EXPECT_EQ(stage.layers.targets, std::vector<std::string>{"re:.*proj"});
}

TEST(QuantizeSection, AnotherTypeThanThePresetsStartsFromItsOwnDefaults) {
  const WeightScheme scheme =
      quantize_stage("scheme: W8A16, weights: {type: nf4}").config.weights;
  EXPECT_EQ(scheme.type, WeightType::kNf4);
  EXPECT_EQ(scheme.bits, 4);
  EXPECT_EQ(scheme.group_size, 64);
}

TEST(QuantizeSection, ThePresetsOwnTypeKeepsItsOtherKeys) {
  const WeightScheme scheme =
      quantize_stage("scheme: W8A16, weights: {type: int}").config.weights;
  EXPECT_EQ(scheme.bits, 8);
  EXPECT_EQ(scheme.group_size, -1);
}

TEST(QuantizeSection, EveryPresetOfTheTableParses) {
  for (const SchemePreset& preset : scheme_presets()) {
    const QuantizeStage stage =
        quantize_stage("scheme: " + std::string(preset.name));
    EXPECT_EQ(stage.config.weights, preset.weights) << preset.name;
    EXPECT_EQ(stage.config.input, preset.input) << preset.name;
  }
}

TEST(QuantizeSection, EveryMethodOfTheTableParses) {
  for (const QuantizerMethod& method : quantizer_methods()) {
    EXPECT_EQ(quantize_stage(choosing(method)).config.method, method.name);
  }
}

TEST(QuantizeSection, PresetsMeanWhatCompressedTensorsMeans) {
  const WeightScheme w4a16 = quantize_stage("scheme: W4A16").config.weights;
  EXPECT_EQ(w4a16.bits, 4);
  EXPECT_EQ(w4a16.group_size, 128);
  EXPECT_TRUE(w4a16.symmetric);
  EXPECT_FALSE(quantize_stage("scheme: W4A16_ASYM").config.weights.symmetric);
  const WeightScheme w8a16 = quantize_stage("scheme: W8A16").config.weights;
  EXPECT_EQ(w8a16.bits, 8);
  EXPECT_EQ(w8a16.group_size, -1);
  EXPECT_TRUE(w8a16.symmetric);
  const QuantizeConfig w8a8 = quantize_stage("scheme: W8A8").config;
  EXPECT_EQ(w8a8.weights.bits, 8);
  EXPECT_EQ(w8a8.weights.group_size, -1);
  EXPECT_TRUE(w8a8.weights.symmetric);
  EXPECT_EQ(w8a8.input.kind, Kind::kInt);
  EXPECT_EQ(w8a8.input.range, Range::kToken);
  const QuantizeConfig fp8 = quantize_stage("scheme: FP8").config;
  EXPECT_EQ(fp8.weights.group_size, 0);
  EXPECT_EQ(fp8.input.range, Range::kStatic);
  const QuantizeConfig block = quantize_stage("scheme: FP8_BLOCK").config;
  EXPECT_EQ(block.weights.block_rows, 128u);
  EXPECT_EQ(block.weights.block_cols, 128u);
  EXPECT_EQ(block.input.range, Range::kGroup);
  EXPECT_EQ(block.input.group_size, 128u);
}

TEST(QuantizeSection, FloatsAreNamedByTypeOrByBits) {
  const auto weights = [](const std::string& body) {
    return quantize_stage("weights: {" + body + "}").config.weights;
  };
  EXPECT_EQ(weights("type: float, bits: 8"), weights("type: fp8"));
  EXPECT_EQ(weights("type: float, bits: 16"), weights("type: bf16"));
  EXPECT_EQ(weights("type: float, bits: 32"), weights("type: f32"));
  EXPECT_EQ(weights("type: f16").float_dtype, DType::kF16);
  EXPECT_TRUE(has(refusal(quantizing("weights: {type: float}")), "'bits'"));
  EXPECT_TRUE(has(refusal(quantizing("weights: {type: float, bits: 4}")),
                  "8 (fp8), 16 (bf16) or 32"));
}

TEST(QuantizeSection, ScalesOfRowsAreKeptInF32) {
  const auto dtype = [](const std::string& body) {
    return quantize_stage("weights: {" + body + "}").config.weights.scale_dtype;
  };
  EXPECT_EQ(dtype("group_size: 32"), DType::kF16);
  EXPECT_EQ(dtype("group_size: -1"), DType::kF32);
  EXPECT_EQ(dtype("group_size: -1, scale_dtype: bf16"), DType::kBF16);
}

TEST(QuantizeSection, TheBlockSizeBelongsToTablesAndFp8) {
  const auto weights = [](const std::string& body) {
    return quantize_stage("weights: {" + body + "}").config.weights;
  };
  EXPECT_EQ(weights("type: nf4, block_size: 128").group_size, 128);
  EXPECT_EQ(weights("type: fp8, block_size: 128").block_cols, 128u);
  EXPECT_EQ(weights("type: fp8, block_size: 128").group_size, 0);
  EXPECT_EQ(weights("type: fp8, block_size: [64, 128]").block_rows, 64u);
  EXPECT_TRUE(has(refusal(quantizing("weights: {type: int, block_size: 32}")),
                  "'group_size'"));
  EXPECT_TRUE(has(refusal(quantizing("weights: {type: nf4, block_size: 48}")),
                  "power of two"));
  EXPECT_TRUE(
      has(refusal(quantizing("weights: {type: fp8, block_size: [1, 2, 3]}")),
          "[rows, cols]"));
}

TEST(QuantizeSection, ValuesThatDoNotFitTheTypeAreRefused) {
  const auto message = [](const std::string& body) {
    return refusal(quantizing("weights: {" + body + "}"));
  };
  EXPECT_TRUE(has(message("bits: 9"), "from 2 to 8"));
  EXPECT_TRUE(has(message("bits: 1"), "from 2 to 8"));
  EXPECT_TRUE(has(message("type: fp8, bits: 4"), "fp8 has 8"));
  EXPECT_TRUE(has(message("type: nf4, symmetric: false"), "zero points"));
  EXPECT_TRUE(has(message("type: nf4, group_size: 64"), "'block_size'"));
  EXPECT_TRUE(has(message("type: fp8, group_size: 128"), "from -1 to 0"));
  EXPECT_TRUE(has(message("type: mxfp4, group_size: 32"), "mxfp4"));
  EXPECT_TRUE(has(message("type: bf16, scale_dtype: f32"), "bf16"));
  EXPECT_TRUE(has(message("double_quant: true"), "integers"));
  EXPECT_TRUE(has(message("group_size: -2"), "from -1"));
  EXPECT_TRUE(has(message("group_size: 32.5"), "an integer"));
  EXPECT_TRUE(has(message("mse_norm: 2"), "range: mse"));
  EXPECT_TRUE(has(message("type: in"), "did you mean 'int'?"));
}

TEST(QuantizeSection, ActivationsAreDynamicStaticOrNone) {
  const auto input = [](const std::string& body) {
    return quantize_stage("scheme: W8A16, " + body).config.input;
  };
  EXPECT_EQ(input("input: {type: int}").range, Range::kToken);
  EXPECT_EQ(input("input: {type: int, dynamic: false}").range, Range::kStatic);
  EXPECT_EQ(input("activations: {range: tensor}").kind, Kind::kInt);
  EXPECT_EQ(input("input: {bits: 4, symmetric: false}").bits, 4);
  EXPECT_EQ(input("input: {range: group}").group_size, 128u);
  EXPECT_EQ(input("input: {range: group, group_size: 32}").group_size, 32u);
  const ActivationQuant token =
      quantize_stage("scheme: FP8_BLOCK, input: {range: token}").config.input;
  EXPECT_EQ(token.range, Range::kToken);
  EXPECT_EQ(token.group_size, 0u);
  EXPECT_EQ(quantize_stage("scheme: W8A8, input: {type: none}").config.input,
            ActivationQuant{});
  const auto message = [](const std::string& body) {
    return refusal(quantizing("scheme: W8A16, " + body));
  };
  EXPECT_TRUE(has(message("input: {}, activations: {}"), "another word"));
  EXPECT_TRUE(has(message("input: {dynamic: true, range: static}"),
                  "contradicts 'range'"));
  EXPECT_TRUE(has(message("input: {bits: 6}"), "4 nor 8"));
  EXPECT_TRUE(has(message("input: {group_size: 64}"), "needs 'range: group'"));
  EXPECT_TRUE(has(message("input: {type: none, bits: 8}"), "type: none"));
  EXPECT_TRUE(has(message("input: {type: fp8}"), "rounds activations to fp8"));
  EXPECT_TRUE(has(refusal(quantizing("scheme: FP8, input: {type: int}")),
                  "rounds activations to integers"));
}

// Another value that the setting may have, as a recipe says it.
struct OtherValue {
  const QuantizeConfig& config;
  std::string operator()(const BoolSetting<QuantizeConfig>& s) const {
    return s.place.get(config) ? "false" : "true";
  }
  std::string operator()(const CountSetting<QuantizeConfig>& s) const {
    return std::to_string(s.place.get(config) == s.low ? s.high : s.low);
  }
  std::string operator()(const NumberSetting<QuantizeConfig>& s) const {
    const double now = s.place.get(config);
    return std::to_string(now == s.low ? (s.low + s.high) / 2
                                       : (now + s.low) / 2);
  }
  std::string operator()(const WordSetting<QuantizeConfig>& s) const {
    return std::string(s.word((s.place.get(config) + 1) % s.words));
  }
};

TEST(QuantizeSection, EverySettingOfEveryRowReachesTheConfigAndComesBack) {
  std::size_t seen = 0;
  for (const QuantizerMethod& method : quantizer_methods()) {
    const QuantizeConfig defaults = quantize_stage(choosing(method)).config;
    for (const auto& setting : method.settings) {
      // One that another must allow first has a test of its own.
      if (setting.applies != nullptr && !setting.applies(defaults)) continue;
      const std::string key(setting.key);
      const std::string value = std::visit(OtherValue{defaults}, setting.value);
      const std::string said = key + ": " + value;
      const std::string name(method.name);
      const std::string body =
          choosing(method) + ", " +
          (method.settings_in_stage ? said : name + ": {" + said + "}");
      SCOPED_TRACE(body);
      const QuantizeConfig config = quantize_stage(body).config;
      EXPECT_NE(config, defaults);
      const Recipe recipe = parse_recipe(quantizing(body), "r.yaml");
      const std::string resolved = resolved_yaml(recipe);
      EXPECT_TRUE(has(resolved, key + ": ")) << resolved;
      EXPECT_EQ(recipe, parse_recipe(resolved, "r.yaml"));
      ++seen;
    }
  }
  EXPECT_GE(seen, 20u);
}

TEST(QuantizeSection, ASettingBeyondItsRangeIsRefusedWithIt) {
  EXPECT_EQ(refusal(quantizing("method: hqq, hqq: {p: 2}")),
            "recipe.yaml:3:38: 'p' in 'hqq' is '2'; wants a number from 0.001 "
            "to 1");
  EXPECT_TRUE(has(refusal(quantizing("method: hqq, hqq: {iterations: 0}")),
                  "an integer from 1 to 10000"));
  EXPECT_TRUE(has(refusal(quantizing("method: awq, awq: {clip: yes}")),
                  "wants true or false"));
  EXPECT_TRUE(has(refusal(quantizing("method: awq, awq: {clip: false, "
                                     "clip_steps: 4}")),
                  "needs 'clip: true'"));
  EXPECT_TRUE(
      has(refusal(quantizing("method: llm_int8, llm_int8: {outliers: bach}")),
          "did you mean 'batch'?"));
  EXPECT_TRUE(has(refusal("calibration: {text: c}\nstages: [smooth: {method: "
                          "awq, alpha: 0.5}]\n"),
                  "does not apply to method 'awq'"));
}

TEST(QuantizeSection, KeysOfAnotherMethodAreRefused) {
  EXPECT_EQ(
      refusal(quantizing("act_order: true")),
      "recipe.yaml:3:27: 'act_order' in 'quantize' needs method or solver "
      "'gptq'; this is 'rtn'");
  EXPECT_TRUE(has(refusal(quantizing("method: gptq, hqq: {p: 0.5}")),
                  "does not apply to method 'gptq'"));
  EXPECT_TRUE(has(refusal(quantizing("method: gptq, solver: rtn")), "solver"));
  EXPECT_TRUE(has(refusal(quantizing("target_bits: 4")), "method: auto"));
  EXPECT_TRUE(has(refusal(quantizing("method: gptq, weights: {type: nf4}")),
                  "gives type 'nf4' to method 'gptq'"));
  EXPECT_TRUE(has(refusal(quantizing("method: nf4, weights: {type: int}")),
                  "method 'nf4'"));
  EXPECT_TRUE(has(refusal(quantizing("method: hqq, scheme: W4A16")),
                  "symmetric: false"));
  EXPECT_TRUE(
      has(refusal(quantizing("method: llm_int8, scheme: W4A16")), "8 bits"));
  EXPECT_TRUE(
      has(refusal(quantizing("method: llm_int8, scheme: W8A16")), "type: int"));
  EXPECT_TRUE(has(refusal(quantizing("method: gptq, gptaq_alpha: 0.5")),
                  "asymmetric_calibration"));
  EXPECT_TRUE(has(
      refusal(
          quantizing("method: gptq, act_order: true, group_aware_order: true")),
      "exclude"));
}

TEST(QuantizeSection, GptqKeysReachTheConfig) {
  const GptqConfig gptq =
      quantize_stage(
          "method: gptq, static_groups: false, damping_fraction: 0.05, "
          "damping_policy: fail, damping_increment: 0.1, damping_bound: 0.5, "
          "block_size: 64, dead_columns: round, compat: reference, "
          "asymmetric_calibration: true, "
          "gptaq_alpha: 0.5")
          .config.gptq;
  EXPECT_FALSE(gptq.static_groups);
  EXPECT_EQ(gptq.damping_fraction, 0.05);
  EXPECT_EQ(gptq.damping_policy, DampingPolicy::kFail);
  EXPECT_EQ(gptq.damping_increment, 0.1);
  EXPECT_EQ(gptq.damping_bound, 0.5);
  EXPECT_EQ(gptq.block_size, 64u);
  EXPECT_EQ(gptq.dead_columns, DeadColumns::kRound);
  EXPECT_TRUE(gptq.stale_grid);
  EXPECT_TRUE(gptq.asymmetric_calibration);
  EXPECT_EQ(gptq.gptaq_alpha, 0.5);
}

TEST(QuantizeSection, LlmInt8PutsItsThresholdOnTheInput) {
  const auto input = [](const std::string& body) {
    return quantize_stage("method: llm_int8, llm_int8: {" + body + "}")
        .config.input;
  };
  EXPECT_EQ(input("outliers: batch").outlier_threshold, 6.0f);
  EXPECT_EQ(input("outliers: batch, threshold: 3.5").outlier_threshold, 3.5f);
  EXPECT_EQ(input("outliers: batch, threshold: 0").outlier_threshold, 0.0f);
  EXPECT_EQ(input("").outlier_threshold, 0.0f)
      << "the weight knows its columns";
  EXPECT_EQ(input("").kind, Kind::kInt);
}

TEST(QuantizeSection, MixedPrecisionNeedsExactlyOneBudget) {
  const QuantizeStage bits = quantize_stage("method: auto, target_bits: 4.5");
  EXPECT_EQ(bits.target_bits, 4.5);
  const QuantizeStage bytes =
      quantize_stage("method: auto, target_bytes: 2MiB");
  EXPECT_EQ(bytes.target_bytes, std::uint64_t{2} << 20);
  EXPECT_TRUE(has(refusal(quantizing("method: auto")), "target_bits"));
  EXPECT_TRUE(has(
      refusal(quantizing("method: auto, target_bits: 4, target_bytes: 1GB")),
      "target_bytes"));
  EXPECT_TRUE(
      has(refusal(quantizing("method: auto, target_bytes: many")), "bytes"));
}

TEST(QuantizeSection, AMethodThatDoesNotExistIsNamedWithItsNeighbour) {
  EXPECT_TRUE(has(refusal(quantizing("method: gptk")), "did you mean 'gptq'?"));
  EXPECT_TRUE(
      has(refusal(quantizing("scheme: W4A61")), "did you mean 'W4A16'?"));
  EXPECT_TRUE(has(refusal(quantizing("scheme: W4A61")), "NVFP4A16"));
}

TEST(QuantizeSection, APatternIsCompiledWhereItStands) {
  EXPECT_EQ(refusal(quantizing("targets: [Linear, 're:(q']")).substr(0, 18),
            "recipe.yaml:3:34: ");
}

TEST(QuantizeSection, TakesAnImportanceMatrixInPlaceOfCalibration) {
  const Recipe recipe = parse_recipe(
      "stages:\n  - quantize: {method: imatrix, importance: im.gguf}\n",
      "recipe.yaml");
  const auto& stage = std::get<QuantizeStage>(recipe.stages.at(0));
  EXPECT_EQ(stage.importance.filename(), "im.gguf");
  EXPECT_TRUE(stage.importance.is_absolute());
  EXPECT_TRUE(has(refusal(quantizing("method: gptq, importance: im.gguf")),
                  "method: imatrix"));
  EXPECT_TRUE(has(refusal(quantizing("method: imatrix, scheme: W8A8, input: "
                                     "{range: static}, importance: im.gguf")),
                  "static"));
}

}  // namespace
}  // namespace llmpress
