#include "formats/linears/loader_rules.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "formats/linears/compressed_tensors.h"
#include "tests/formats/linears/sample_linears.h"

namespace llmpress {
namespace {

std::string rule_of(const std::string& name, const LinearWeights& linear) {
  const LoaderRule* const rule = broken_rule(name, linear);
  return rule == nullptr ? "" : std::string(rule->name);
}

TEST(LoaderRules, GoIntoOurOwnGroupFormatIfAndOnlyIfNoLoaderTakesThem) {
  std::set<std::string> seen;
  for (const SampleLinear& sample : sample_linears()) {
    for (const std::string name : {"model.a", "model.embed_tokens"}) {
      const LoaderRule* const rule = broken_rule(name, sample.linear);
      const bool ours = rule != nullptr && rule->readers == Readers::kOnlyUs;
      const EncodedLinear encoded =
          encode_compressed_tensors(name, sample.linear);
      EXPECT_EQ(encoded.scheme.format == kOwnFormat, ours)
          << name << " " << sample.what << " " << encoded.scheme.format;
      if (rule != nullptr) seen.emplace(rule->name);
    }
  }
  EXPECT_TRUE(seen.contains("packed-embedding"));
  EXPECT_TRUE(seen.contains("4-bit-table"));
  EXPECT_TRUE(seen.contains("sparse-storage"));
}

TEST(LoaderRules, NameWhatIsWrongWithIntegersInGroups) {
  LinearWeights linear{.weight = sample_grouped(4, 8, 40, 8, true)};
  EXPECT_EQ(rule_of("a", linear), "");
  EXPECT_EQ(rule_of("model.embed_tokens", linear), "packed-embedding");
  linear.weight = sample_grouped(4, 8, 40, 16, true);
  EXPECT_EQ(rule_of("a", linear), "group-divides-inputs");
  linear.weight = sample_grouped(4, 8, 40, 40, true);
  EXPECT_EQ(rule_of("a", linear), "") << "one group a row";
  linear.weight = sample_grouped(4, 8, 40, 8, false);
  EXPECT_EQ(rule_of("a", linear), "packed-zeros");
  auto& grouped = std::get<GroupedIntWeight>(linear.weight);
  for (std::uint32_t i = 0; i < 40; ++i) grouped.g_idx.push_back(i % 5);
  EXPECT_EQ(rule_of("a", linear), "activation-order");
}

TEST(LoaderRules, E5M2IsTakenForE4M3) {
  Fp8Weight fp8 = sample_fp8(8, 16, 1, 16);
  EXPECT_EQ(rule_of("a", {.weight = fp8}), "");
  fp8.format = DType::kF8E5M2;
  EXPECT_EQ(rule_of("a", {.weight = fp8}), "fp8-e5m2");
}

TEST(LoaderRules, KnowTheModulesOfTransformers) {
  const LinearWeights w4{.weight = sample_grouped(4, 8, 40, 8, true)};
  const LinearWeights fp8{.weight = sample_fp8(8, 16, 1, 16)};
  const LinearWeights plain{.weight =
                                make_dense(MatrixF(4, 8).view(), DType::kF32)};
  const LinearWeights int8{
      .weight = Int8Weight{.out = 1, .in = 2, .codes = {1, 2}, .scales = {1}}};
  const auto rule = [](const LinearWeights& linear, const ModuleFacts& module) {
    const LoaderRule* const broken = broken_rule("a", linear, module);
    if (broken == nullptr) return std::string();
    EXPECT_EQ(broken->readers, Readers::kNotHf);
    return std::string(broken->name);
  };
  const ModuleFacts conv1d{.transposed = true};
  EXPECT_EQ(rule(w4, conv1d), "conv1d");
  EXPECT_EQ(rule(fp8, conv1d), "conv1d");
  EXPECT_EQ(rule(plain, conv1d), "");
  const ModuleFacts early{.weight_read_early = true};
  EXPECT_EQ(rule(w4, early), "weight-read-early");
  EXPECT_EQ(rule(fp8, early), "") << "a tensor of that name";
  const ModuleFacts only{.expert = ExpertModules::kStackedOnly};
  EXPECT_EQ(rule(w4, only), "stacked-experts");
  EXPECT_EQ(rule(fp8, only), "stacked-experts");
  EXPECT_EQ(rule(plain, only), "");
  const ModuleFacts stacked{.expert = ExpertModules::kStacked};
  EXPECT_EQ(rule(w4, stacked), "");
  EXPECT_EQ(rule(fp8, stacked), "");
  EXPECT_EQ(rule(int8, stacked), "int8-experts");
  const LinearWeights zeros{.weight = sample_grouped(4, 8, 40, 8, false)};
  EXPECT_EQ(rule(zeros, stacked), "expert-zeros");
  EXPECT_EQ(rule(zeros, {}), "packed-zeros");
  MicroFp4Weight fp4{.out = 1, .in = 32};
  EXPECT_EQ(rule({.weight = fp4}, stacked), "");
  fp4.kind = MicroFp4Kind::kNvfp4;
  EXPECT_EQ(rule({.weight = fp4}, stacked), "nvfp4-experts");
  EXPECT_EQ(rule({.weight = fp4}, {}), "");
}

// vLLM's head is of no class that "Linear" names.
TEST(LoaderRules, TheHeadHasAGroupThatNamesIt) {
  const LinearWeights linear{.weight = sample_grouped(4, 8, 32, 8, true)};
  std::map<std::string, DescribedLinear> linears;
  for (const char* name : {"l.a", "l.b", "lm_head"}) {
    EncodedLinear encoded = encode_compressed_tensors(name, linear);
    linears[name] = {encoded.scheme, encoded.extension};
  }
  const auto config =
      nlohmann::json::parse(compressed_tensors_config(linears, {}));
  std::set<nlohmann::json> targets;
  for (const auto& group : config["config_groups"]) {
    targets.insert(group["targets"]);
  }
  EXPECT_EQ(targets, (std::set<nlohmann::json>{{"Linear"}, {"lm_head"}}));
  EXPECT_EQ(config["format"], "pack-quantized");
}

// Loaders of today know no sparsity_config and would compute garbage.
TEST(LoaderRules, SparseStorageStandsInAGroupThatLoadersRefuse) {
  const MatrixF zero(4, 8);
  for (const SparsePattern pattern :
       {SparsePattern::kBitmask, SparsePattern::k2of4}) {
    const EncodedLinear encoded = encode_compressed_tensors(
        "l.a", {.weight = make_sparse(zero.view(), pattern, DType::kF32)});
    const auto config = nlohmann::json::parse(compressed_tensors_config(
        {{"l.a", {encoded.scheme, encoded.extension}}}, {}));
    EXPECT_EQ(config["config_groups"]["group_0"]["format"], "llmpress");
    EXPECT_FALSE(config.contains("sparsity_config"));
  }
}

}  // namespace
}  // namespace llmpress
