#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "quantizers/method.h"
#include "tests/places.h"
#include "tests/recipes/parse_failure.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// The resolved form from another folder, so that a relative path would differ.
void expect_round_trip(const std::string& text) {
  const Recipe recipe = parse_recipe(text, "/some/where/r.yaml");
  const std::string resolved = resolved_yaml(recipe);
  Recipe again;
  ASSERT_NO_THROW(again = parse_recipe(resolved, "/other/x.yaml")) << resolved;
  EXPECT_EQ(recipe, again) << text << "\n->\n" << resolved;
  EXPECT_EQ(resolved, resolved_yaml(again));
}

TEST(ResolvedYaml, ParsesBackToTheSameRecipe) {
  expect_round_trip("model: m\n");
  expect_round_trip("name: \"a \\\"b\\\" \\\\ \\n tab\\t\"\nmodel: 'it''s'\n");
  expect_round_trip(
      "calibration: {text: c, sampling: sequential, seed: 9}\n"
      "evaluate: {text: e, protocol: strided, context: 100, stride: 7, "
      "kv_cache: {type: int4, rotate_keys: true}}\n"
      "output: {path: o, format: gguf, max_shard_size: 3GiB}\nreport: r\n");
  expect_round_trip("evaluate: {text: e, context: 100, protocol: llama.cpp}\n");
}

TEST(ResolvedYaml, KeepsEveryStage) {
  for (const char* stage :
       {"merge_lora: {adapter: a, scale: -0.1}",
        "rotate: {seed: 12, online: true}",
        "inject_outliers: {factor: 0.3}",
        "quantize_kv_cache: {type: int8}",
        "train: {text: t, steps: 10}",
        "train: {text: t, held_out: h, epochs: 2.5, optimizer: sgd, momentum: "
        "0.5, nesterov: true, schedule: constant, patience: 2, seed: 4}",
        "train: {text: t, tokens: 1000, weights: bf16, keep_zeros: true, "
        "optimizer: adamw_8bit, student: {config: c.json, seed: 3}}",
        "distill: {text: t, steps: 1, teacher: p, loss: jsd, beta: 0.25, "
        "hidden: 1, hidden_loss: mse, student: {every: 2}}",
        "distill: {text: t, steps: 1, cross_entropy: 0}",
        "smooth: {method: smoothquant, alpha: 0.85}",
        "smooth: {search_alpha: true}",
        "smooth: {method: awq, clip: false, weights: {bits: 3}}",
        "smooth: {method: awq, clip_max_shrink: 0.3}",
        "prune: {method: magnitude, sparsity: 0.3}",
        "prune: {method: sparsegpt, pattern: '4:8', damping_policy: fail, "
        "block_size: 64, targets: q_proj, ignore: ['re:.*0']}",
        "prune: {allocation: owl, owl_lambda: 0.1, wanda_variant: true}",
        "prune: {method: ffn, importance: gradients, heal: false, multiple_of: "
        "16, damping_fraction: 0.02}",
        "prune: {method: heads, importance: weights}",
        "prune: {method: hidden, sparsity: 0.25}",
        "prune: {method: depth, depth_importance: perplexity}",
        "prune: {method: experts, sparsity: 0.25}",
        "prune: {method: experts, expert_importance: output_error}",
        "prune: {method: kv_heads, kv_heads: 2, kv_grouping: calibrated}"}) {
    expect_round_trip(std::string("calibration: {text: c}\nstages:\n  - ") +
                      stage + "\n");
  }
}

TEST(ResolvedYaml, KeepsEveryPresetAndMethod) {
  for (const std::string_view scheme : scheme_names()) {
    expect_round_trip(quantizing("scheme: " + std::string(scheme)));
  }
  for (const QuantizerMethod& method : quantizer_methods()) {
    expect_round_trip(quantizing(choosing(method)));
  }
}

TEST(ResolvedYaml, KeepsWhatAStageOverrides) {
  for (const char* c : {
           "weights: {bits: 5, group_size: 48, range: mse, "
           "mse_norm: 2.1, scale_dtype: f32}",
           "weights: {type: fp8, block_size: [64, 32], scale_dtype: "
           "bf16}, input: {type: fp8, range: tensor}",
           "weights: {type: fp8_e5m2, group_size: 0}",
           "weights: {type: fp4, double_quant: true}",
           "scheme: W8A8, input: {symmetric: false, bits: 4}",
           "scheme: W8A8, input: {type: none}",
           "targets: [lm_head, Linear], ignore: [q_proj, 're:a\\b']",
           "method: gptq, group_aware_order: true, compat: "
           "reference, damping_bound: 2.5",
           "method: gptq, asymmetric_calibration: true, "
           "gptaq_alpha: 0.125",
           "method: awq, solver: gptq, act_order: true, awq: "
           "{ratios: 5, clip: false}",
           "method: smoothquant, smoothquant: {alpha: 0.7}",
           "method: hqq, hqq: {p: 0.5, iterations: 3}",
           "method: llm_int8, llm_int8: {threshold: 3.5}",
           "method: llm_int8, llm_int8: {outliers: calibrated}",
           "method: auto, target_bits: 4.5, solver: gptq",
           "method: auto, target_bytes: 3MB",
           "method: imatrix, importance: im.gguf",
       }) {
    expect_round_trip(quantizing(c));
  }
}

TEST(ResolvedYaml, KeepsVariants) {
  expect_round_trip(
      "output: {path: o}\nstages: [{rotate: {}}]\nvariants:\n"
      "  - {name: a, stages: [{quantize: {}}, {rotate: {seed: 4}}]}\n"
      "  - {name: b, output: {path: p, format: hdf5}}\n");
  expect_round_trip("variants: [{name: only}]\n");
}

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(ShippedRecipes, ParseAndComeBackFromTheirResolvedForm) {
  std::size_t found = 0;
  const std::string index =
      read(fs::path(source_dir()) / "recipes" / "README.md");
  for (const auto& entry :
       fs::directory_iterator(fs::path(source_dir()) / "recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    ++found;
    SCOPED_TRACE(entry.path().string());
    const Recipe recipe = load_recipe(entry.path());
    EXPECT_EQ(recipe.name, entry.path().stem());
    EXPECT_NE(index.find("](" + entry.path().filename().string() + ") | " +
                         recipe.description + " |"),
              std::string::npos)
        << recipe.description;
    EXPECT_EQ(recipe, parse_recipe(resolved_yaml(recipe), "/x/r.yaml"));
    const auto shipped = [](const fs::path& path) {
      EXPECT_TRUE(path.empty() || fs::exists(path)) << path;
    };
    shipped(recipe.model);
    shipped(recipe.calibration.value_or(CalibrationConfig{}).text);
    shipped(recipe.evaluate.value_or(EvaluateConfig{}).text);
  }
  EXPECT_GE(found, 7u);
}

}  // namespace
}  // namespace llmpress
