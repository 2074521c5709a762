#include "formats/linears/mlx.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/linears/sample_linears.h"

namespace llmpress {
namespace {

LinearScheme scheme_of(int bits, std::size_t group_size) {
  return {.weights = QuantArgs{.bits = bits,
                               .symmetric = false,
                               .strategy = "group",
                               .group_size = group_size},
          .format = "mlx"};
}

LinearWeights read_with(const std::vector<NamedTensor>& tensors,
                        const LinearScheme& scheme) {
  const auto owner =
      std::make_shared<const std::string>(write_safetensors(tensors, {}));
  const auto reader =
      read_safetensors({std::as_bytes(std::span(*owner)), owner}, "m");
  return read_linear({*reader, "p", scheme, {}}, "m");
}

std::vector<NamedTensor> stored(const std::vector<std::uint32_t>& words,
                                float scale, float bias) {
  return {tensor_of("p.weight", DType::kU32, {1, words.size()}, words),
          tensor_of("p.scales", DType::kF32, {1, 1}, std::vector{scale}),
          tensor_of("p.biases", DType::kF32, {1, 1}, std::vector{bias})};
}

// mx.quantize (0.32) of ((37 i) mod 64 - 32) / 16, i below 32, in one group,
// and what mx.dequantize makes of elements 0, 7 and 31.
struct Golden {
  int bits;
  std::vector<std::uint32_t> words;
  float scale, bias;
  float values[3];
};
const std::vector<Golden>& goldens() {
  static const std::vector<Golden> all{
      {2, {0xcb762dd8u, 0xdd8b76edu}, 1.0f, -2.0f, {-2.0f, -2.0f, 1.0f}},
      {3,
       {0x9513ac68u, 0xcefaa677u, 0xef2a2758u},
       0.5f,
       -2.0f,
       {-2.0f, -2.0f, 1.5f}},
      {4,
       {0x18e5c290u, 0xb28f6c3au, 0x5c29f6d4u, 0xf6c3a07eu},
       0.25f,
       -2.0f,
       {-2.0f, -1.75f, 1.75f}},
      {5,
       {0xf8ac1640u, 0xe664d413u, 0xb748b0e1u, 0xdc55c92fu, 0xf2f06a05u},
       0.125f,
       -2.0f,
       {-2.0f, -1.75f, 1.75f}},
      {6,
       {0x54bca940u, 0x23680deeu, 0xac687c5fu, 0x64fdad50u, 0x27784ee2u,
        0xed6c4c9cu},
       0.0625f,
       -2.0f,
       {-2.0f, -1.8125f, 1.6875f}},
      {8,
       {0xbf299600u, 0x0c7ae851u, 0x5dcb35a2u, 0xaf1886f4u, 0xff6ad741u,
        0x4dbb2592u, 0x9e0876e4u, 0xf059c731u},
       0.015384615398943424f,
       -2.0f,
       {-2.0f, -1.8153846263885498f, 1.692307710647583f}},
  };
  return all;
}

TEST(Mlx, ReadsWhatMlxWrites) {
  for (const Golden& golden : goldens()) {
    const LinearWeights linear =
        read_with(stored(golden.words, golden.scale, golden.bias),
                  scheme_of(golden.bits, 32));
    const MatrixF W = dequantize(linear.weight);
    ASSERT_EQ(W.cols(), 32u) << golden.bits;
    const std::size_t places[]{0, 7, 31};
    for (std::size_t k = 0; k < 3; ++k) {
      // The zero point -bias / scale is rounded once more.
      EXPECT_NEAR(W(0, places[k]), golden.values[k],
                  4 * std::fabs(golden.bias) * 0x1p-24f)
          << golden.bits;
    }
  }
}

TEST(Mlx, BringsIntegersOfEveryWidthBackAsTheyWere) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const std::size_t group : {32u, 64u}) {
        const LinearWeights linear{
            .weight = sample_grouped(bits, 12, 128, group, symmetric),
            .bias = std::vector<float>(12, 1)};
        const EncodedLinear e = encode_mlx("p", linear);
        expect_same_linear(read_with(e.tensors, e.scheme), linear, "mlx");
      }
    }
  }
}

TEST(Mlx, KeepsTheValuesOfZeroPointsThatF16DoesNotHold) {
  GroupedIntWeight w = sample_grouped(4, 4, 64, 32, false);
  w.scale_dtype = DType::kF16;
  w.scales.assign(w.scales.size(), 0x1.ffcp-4f);  // all eleven bits
  w.zeros.assign(w.zeros.size(), 5);
  const EncodedLinear e = encode_mlx("p", {.weight = w});
  EXPECT_EQ(e.tensors[2].dtype, DType::kF32);
  const LinearWeights back = read_with(e.tensors, e.scheme);
  const MatrixF before = dequantize(PackedWeight(w));
  const MatrixF after = dequantize(back.weight);
  EXPECT_TRUE(std::ranges::equal(before.data(), after.data()));
}

TEST(Mlx, CutsLongGroupsIntoThoseThatMlxKnows) {
  const GroupedIntWeight w = sample_grouped(4, 4, 256, 256, true);
  const EncodedLinear e = encode_mlx("p", {.weight = w});
  EXPECT_EQ(e.scheme.weights->group_size, 128u);
  EXPECT_EQ(e.tensors[1].shape, (std::vector<std::size_t>{4, 2}));
  const MatrixF back = dequantize(read_with(e.tensors, e.scheme).weight);
  EXPECT_TRUE(
      std::ranges::equal(dequantize(PackedWeight(w)).data(), back.data()));
}

TEST(Mlx, AGroupOfScaleZeroIsItsBias) {
  const MatrixF W =
      dequantize(read_with(stored({0x76543210u, 0u, 0u, 0u}, 0.0f, 0.75f),
                           scheme_of(4, 32))
                     .weight);
  for (const float w : W.data()) EXPECT_EQ(w, 0.75f);
}

TEST(Mlx, RefusesWhatItCannotHold) {
  const auto refused = [](const PackedWeight& weight) -> std::string {
    try {
      (void)encode_mlx("p", {.weight = weight});
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
      return e.what();
    }
    return "";
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(has(refused(sample_grouped(7, 4, 64, 32, true)), "7 bits"));
  EXPECT_TRUE(has(refused(sample_grouped(4, 4, 48, 16, true)), "groups of 16"));
  GroupedIntWeight ordered = sample_grouped(4, 4, 64, 32, true);
  ordered.g_idx.assign(64, 0);
  EXPECT_TRUE(has(refused(ordered), "order"));
}

TEST(Mlx, RefusesFilesThatDoNotFitTogether) {
  const auto& golden = goldens()[2];
  auto tensors = stored(golden.words, golden.scale, golden.bias);
  EXPECT_THROW((void)read_with(tensors, scheme_of(4, 64)), Error);
  EXPECT_THROW((void)read_with(tensors, scheme_of(3, 32)), Error);
  EXPECT_THROW((void)read_with(tensors, scheme_of(4, 0)), Error);
  tensors[1] =
      tensor_of("p.scales", DType::kF32, {1, 1}, std::vector{std::nanf("")});
  EXPECT_THROW((void)read_with(tensors, scheme_of(4, 32)), Error);
  tensors.pop_back();
  EXPECT_THROW((void)read_with(tensors, scheme_of(4, 32)), Error);
}

TEST(Mlx, SaysInTheConfigurationWhichModulesDiffer) {
  std::map<std::string, DescribedLinear> linears;
  for (const char* name : {"a", "b", "c"}) {
    linears[name].scheme =
        encode_mlx(name, {.weight = sample_grouped(name[0] == 'c' ? 8 : 4, 4,
                                                   64, 64, true)})
            .scheme;
  }
  linears["d"] = {};
  const auto j = nlohmann::json::parse(mlx_config(linears));
  EXPECT_EQ(j["bits"], 4);
  EXPECT_EQ(j["group_size"], 64);
  EXPECT_EQ(j["c"]["bits"], 8);
  EXPECT_FALSE(j.contains("a"));
  const std::string config =
      with_quantization_config("{}", mlx_config(linears));
  EXPECT_EQ(nlohmann::json::parse(config)["quantization"]["bits"], 4);
  const QuantizationConfig read = parse_quantization_config(config, "c");
  EXPECT_EQ(read.method, "mlx");
  EXPECT_EQ(read.scheme_of("c").weights->bits, 8);
  EXPECT_EQ(read.scheme_of("model.embed_tokens").weights->bits, 4);
  EXPECT_FALSE(parse_quantization_config(
                   R"({"quantization": {"bits": 4, "group_size": 64,
                       "lm_head": false}})",
                   "c")
                   .scheme_of("lm_head")
                   .weights);
  for (const char* bad : {R"({"bits": 4, "group_size": 64, "mode": "nvfp4"})",
                          R"({"bits": 1, "group_size": 64})",
                          R"({"bits": 4, "group_size": "a"})"}) {
    EXPECT_THROW((void)parse_quantization_config(
                     R"({"quantization": )" + std::string(bad) + "}", "c"),
                 Error)
        << bad;
  }
}

}  // namespace
}  // namespace llmpress
