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

LinearScheme floats_of(int bits, std::size_t group_size) {
  return {.weights = QuantArgs{.bits = bits,
                               .floating = true,
                               .strategy = "group",
                               .group_size = group_size},
          .format = "mlx"};
}

// mx.quantize (0.32) of ((37 i) mod 64 - 32) / 16 times 1 for the first half of
// i below 32 and 0.3 for the other, and what mx.dequantize makes of elements 0,
// 7, 18 and 31. The last has the global scale 2 of the largest magnitude.
struct FloatGolden {
  int bits;
  std::size_t group;
  std::vector<std::uint32_t> words;
  std::vector<std::uint8_t> scales;
  float values[4];
  float global = 0;
};
const std::vector<FloatGolden>& float_goldens() {
  static const std::vector<FloatGolden> all{
      {4,
       32,
       {0xe05b4d1eu, 0x3d05a4c2u, 0x91a02029u, 0x29191a02u},
       {126},
       {-2.0f, -2.0f, 0.0f, 0.5f}},
      {8,
       32,
       {0x6ff362f8u, 0xf6d874ecu, 0xe971f268u, 0x6bf55076u, 0x69d665e2u,
        0xe060e652u, 0x58e9ce66u, 0x68dc62e4u},
       {120},
       {-2.0f, -1.75f, -0.109375f, 0.5f}},
      {4,
       16,
       {0xf96c5e2fu, 0x4e07b5d3u, 0xd5e27a6du, 0x7c5e3f96u},
       {43, 28},
       {-2.0625f, -2.0625f, -0.09375f, 0.5625f}},
      {4,
       16,
       {0xf96c5e2fu, 0x4e07b5e3u, 0xd5e27a6du, 0x7c5e3f96u},
       {126, 112},
       {-2.0f, -2.0f, -0.095238097012043f, 0.5714285969734192f},
       2.0f}};
  return all;
}

TEST(Mlx, ReadsTheFloatsThatMlxWrites) {
  for (const FloatGolden& golden : float_goldens()) {
    std::vector<NamedTensor> tensors{
        tensor_of("p.weight", DType::kU32, {1, golden.words.size()},
                  golden.words),
        tensor_of("p.scales", DType::kU8, {1, golden.scales.size()},
                  golden.scales)};
    if (golden.global != 0) {
      tensors.push_back(tensor_of("p.global_scale", DType::kF32, {},
                                  std::vector{golden.global}));
    }
    const LinearWeights linear =
        read_with(tensors, floats_of(golden.bits, golden.group));
    const MatrixF W = dequantize(linear.weight);
    ASSERT_EQ(W.cols(), 32u);
    const std::size_t places[]{0, 7, 18, 31};
    for (std::size_t k = 0; k < 4; ++k) {
      // Only a global scale is rounded: 2688 / g here, g / 2688 there.
      const float bound =
          golden.global == 0 ? 0 : 2 * std::abs(golden.values[k]) * 0x1p-23f;
      EXPECT_NEAR(W(0, places[k]), golden.values[k], bound)
          << golden.bits << ' ' << golden.group;
    }
    if (golden.global != 0) continue;
    // Written again, they are the same octets.
    const EncodedLinear e = encode_mlx("p", linear);
    ASSERT_EQ(e.tensors.size(), 2u);
    for (std::size_t k = 0; k < 2; ++k) {
      EXPECT_EQ(e.tensors[k].bytes, tensors[k].bytes) << golden.bits;
      EXPECT_EQ(e.tensors[k].shape, tensors[k].shape) << golden.bits;
    }
    EXPECT_EQ(e.scheme.weights->group_size, golden.group);
  }
}

TEST(Mlx, PutsAScaleOfManyInputsBeforeEachGroupOfThem) {
  Fp8Weight w = sample_fp8(4, 128, 2, 64);
  w.scales = {0.5f, 2, 0x1p-9f, 1};
  const EncodedLinear e = encode_mlx("p", {.weight = w});
  EXPECT_EQ(e.tensors[1].shape, (std::vector<std::size_t>{4, 4}));
  const MatrixF back = dequantize(read_with(e.tensors, e.scheme).weight);
  EXPECT_TRUE(
      std::ranges::equal(dequantize(PackedWeight(w)).data(), back.data()));
}

TEST(Mlx, FoldsAGlobalScaleThatGoesIntoTheOthers) {
  MicroFp4Weight w = sample_micro_fp4(MicroFp4Kind::kNvfp4, 3, 64);
  std::ranges::fill(w.scales, std::uint8_t{0x48});  // 4
  w.global_scale = 8;
  const EncodedLinear e = encode_mlx("p", {.weight = w});
  const MatrixF back = dequantize(read_with(e.tensors, e.scheme).weight);
  EXPECT_TRUE(
      std::ranges::equal(dequantize(PackedWeight(w)).data(), back.data()));
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
  EXPECT_TRUE(has(refused(sample_fp8(4, 64, 1, 32)), "mxfp8"));
  Fp8Weight narrow = sample_fp8(4, 64, 1, 16);
  std::ranges::fill(narrow.scales, 0.5f);
  EXPECT_TRUE(has(refused(narrow), "mxfp8"));
  EXPECT_TRUE(has(refused(sample_micro_fp4(MicroFp4Kind::kNvfp4, 3, 64)),
                  "global scale 1720.32"));
  EXPECT_TRUE(has(refused(sample_micro_fp4(MicroFp4Kind::kMxfp4, 3, 41)),
                  "32 does not divide"));
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
  for (const FloatGolden& floats : float_goldens()) {
    auto parts = std::vector<NamedTensor>{
        tensor_of("p.weight", DType::kU32, {1, floats.words.size()},
                  floats.words),
        tensor_of("p.scales", DType::kU8, {1, 7},
                  std::vector<std::uint8_t>(7, 120)),
        tensor_of("p.global_scale", DType::kF32, {2}, std::vector{1.0f, 2.0f})};
    const LinearScheme scheme = floats_of(floats.bits, floats.group);
    EXPECT_THROW((void)read_with(parts, scheme), Error);
    if (floats.group != 16) continue;
    parts[1] = tensor_of("p.scales", DType::kU8, {1, 2}, floats.scales);
    EXPECT_THROW((void)read_with(parts, scheme), Error);
  }
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
  const auto rope = nlohmann::json::parse(with_quantization_config(
      R"({"rope_parameters": {"rope_theta": 5.0}})", mlx_config(linears)));
  EXPECT_EQ(rope["rope_theta"], 5.0);
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
                          R"({"bits": 8, "group_size": 16, "mode": "mxfp8"})",
                          R"({"bits": 4, "group_size": 32, "mode": "fp4"})",
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
