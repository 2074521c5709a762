// GPTQ's and AWQ's layouts, against what the tools' packers write.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/awq.h"
#include "formats/linears/gptq.h"
#include "tests/formats/linears/sample_linears.h"

namespace llmpress {
namespace {

using Words = std::vector<std::uint32_t>;
using Shape = std::vector<std::size_t>;

LinearScheme scheme_of(const std::string& format, int bits, bool symmetric,
                       std::size_t group_size) {
  return {.weights = QuantArgs{.bits = bits,
                               .symmetric = symmetric,
                               .strategy = "group",
                               .group_size = group_size},
          .format = format};
}

LinearWeights read_with(const std::vector<NamedTensor>& tensors,
                        const LinearScheme& scheme) {
  const auto owner =
      std::make_shared<const std::string>(write_safetensors(tensors, {}));
  const auto reader =
      read_safetensors({std::as_bytes(std::span(*owner)), owner}, "m");
  return read_linear({*reader, "p", scheme, {}}, "m");
}

const NamedTensor& find(const EncodedLinear& encoded, const std::string& name) {
  for (const NamedTensor& t : encoded.tensors) {
    if (t.name == name) return t;
  }
  throw std::runtime_error("no tensor " + name);
}

template <class T>
std::vector<T> values_of(const NamedTensor& t) {
  std::vector<T> values(t.bytes.size() / sizeof(T));
  std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
  return values;
}

// Codes (5i + 3o) mod 2^bits, zero points `zero(o)`, scales 0.5.
template <class Zero>
GroupedIntWeight pattern(int bits, std::size_t out, std::size_t in,
                         std::size_t group_size, Zero zero) {
  GroupedIntWeight w{.out = out,
                     .in = in,
                     .bits = bits,
                     .group_size = group_size,
                     .symmetric = false,
                     .scale_dtype = DType::kF16};
  Matrix<std::uint8_t> codes(out, in);
  const std::size_t count = std::size_t{1} << bits;
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t i = 0; i < in; ++i) {
      codes(o, i) = static_cast<std::uint8_t>((5 * i + 3 * o) % count);
    }
  }
  w.codes = pack_rows(std::as_const(codes).view(), bits);
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t g = 0; g < w.groups(); ++g) {
      w.scales.push_back(0.5f);
      w.zeros.push_back(static_cast<std::uint8_t>(zero(o)));
    }
  }
  return w;
}

// The first words of outputs 0 and 1, row after row.
Words column(const Words& words, std::size_t out, std::size_t o) {
  Words found;
  for (std::size_t r = 0; r * out < words.size(); ++r) {
    found.push_back(words[r * out + o]);
  }
  return found;
}

TEST(Gptq, PacksCodesAsTheReferenceDoes) {
  struct Golden {
    int bits;
    Words first, second;
  };
  const std::vector<Golden> goldens{
      {2, {0xe4e4e4e4, 0xe4e4e4e4}, {0x93939393, 0x93939393}},
      {3,
       {0xa878cea8, 0xcea878ce, 0x78cea878},
       {0x43c67543, 0x7543c675, 0xc67543c6}},
      {4,
       {0x3e94fa50, 0xb61c72d8, 0x3e94fa50, 0xb61c72d8},
       {0x61c72d83, 0xe94fa50b, 0x61c72d83, 0xe94fa50b}},
      {8,
       {0x0f0a0500, 0x231e1914, 0x37322d28, 0x4b46413c, 0x5f5a5550, 0x736e6964,
        0x87827d78, 0x9b96918c},
       {0x120d0803, 0x26211c17, 0x3a35302b, 0x4e49443f, 0x625d5853, 0x76716c67,
        0x8a85807b, 0x9e99948f}}};
  for (const Golden& golden : goldens) {
    const auto w =
        pattern(golden.bits, 32, 32, 32, [](std::size_t) { return 1; });
    const EncodedLinear e = encode_gptq("p", {.weight = w});
    const NamedTensor& codes = find(e, "p.qweight");
    EXPECT_EQ(codes.shape, (Shape{static_cast<std::size_t>(golden.bits), 32}));
    EXPECT_EQ(column(values_of<std::uint32_t>(codes), 32, 0), golden.first);
    EXPECT_EQ(column(values_of<std::uint32_t>(codes), 32, 1), golden.second);
  }
}

TEST(Gptq, WritesZeroPointsAsTheyAreInVersion2) {
  const auto w =
      pattern(4, 32, 32, 32, [](std::size_t o) { return (7 * o + 3) % 16; });
  const EncodedLinear e = encode_gptq("p", {.weight = w});
  EXPECT_EQ(e.scheme.format, "gptq_v2");
  EXPECT_EQ(values_of<std::uint32_t>(find(e, "p.qzeros")),
            (Words{0x4d6f81a3, 0xc5e7092b, 0x4d6f81a3, 0xc5e7092b}));
  expect_same_linear(read_with(e.tensors, e.scheme), {.weight = w}, "v2");
}

TEST(Gptq, ReadsVersion1FieldByField) {
  const auto w =
      pattern(4, 32, 32, 32, [](std::size_t o) { return (7 * o + 3) % 16; });
  EncodedLinear e = encode_gptq("p", {.weight = w});
  for (NamedTensor& t : e.tensors) {
    if (t.name != "p.qzeros") continue;
    // The reference's, of which one field holds the 15 that stands for 0.
    t = tensor_of<std::uint32_t>(
        t.name, t.dtype, t.shape,
        {0x3c5e7092, 0xb4d6f81a, 0x3c5e7092, 0xb4d6f81a});
  }
  expect_same_linear(read_with(e.tensors, scheme_of("gptq", 4, false, 32)),
                     {.weight = w}, "v1");
}

TEST(Gptq, KnowsSymmetricZeroPointsOfEitherVersion) {
  const GroupedIntWeight w = sample_grouped(4, 32, 64, 32, true);
  EncodedLinear e = encode_gptq("p", {.weight = w});
  EXPECT_EQ(e.scheme.format, "gptq");
  EXPECT_EQ(values_of<std::uint32_t>(find(e, "p.qzeros")),
            Words(8, 0x77777777));
  for (const std::string format : {"gptq", "gptq_v2"}) {
    for (const std::uint32_t zeros : {0x77777777u, 0x88888888u}) {
      for (NamedTensor& t : e.tensors) {
        if (t.name != "p.qzeros") continue;
        t = tensor_of(t.name, t.dtype, t.shape, Words(8, zeros));
      }
      expect_same_linear(read_with(e.tensors, scheme_of(format, 4, true, 32)),
                         {.weight = w}, format);
    }
  }
}

TEST(Gptq, KeepsEveryWidthOrderAndBias) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      LinearWeights linear{
          .weight = sample_grouped(bits, 64, 96, 32, symmetric),
          .bias = std::vector<float>(64, 0.25f)};
      auto& w = std::get<GroupedIntWeight>(linear.weight);
      for (const bool ordered : {false, true}) {
        for (std::size_t i = 0; ordered && i < w.in; ++i) {
          w.g_idx.push_back(static_cast<std::uint32_t>((i * 7) % 3));
        }
        const EncodedLinear e = encode_gptq("p", linear);
        EXPECT_EQ(e.scheme.weights->order_by_group, ordered);
        expect_same_linear(read_with(e.tensors, e.scheme), linear,
                           std::to_string(bits));
      }
    }
  }
}

TEST(Gptq, TakesWholeRowsOfOctetsAsOneGroup) {
  Int8Weight w = sample_int8(32, 64, false, false);
  w.scale_dtype = DType::kF16;
  for (float& s : w.scales) s = 0.125f;
  const EncodedLinear e = encode_gptq("p", {.weight = w});
  const LinearWeights back = read_with(e.tensors, e.scheme);
  const MatrixF found = dequantize(back.weight);
  const MatrixF wanted = dequantize(PackedWeight(w));
  EXPECT_TRUE(std::ranges::equal(found.data(), wanted.data()));
}

template <class Encode>
void expect_refused(const LinearWeights& linear, const std::string& why,
                    Encode encode) {
  try {
    encode("p", linear);
    ADD_FAILURE() << "not refused: " << why;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("Linear 'p'"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find(why), std::string::npos)
        << error.what();
  }
}

TEST(Gptq, RefusesWhatItCannotHold) {
  expect_refused({.weight = sample_grouped(5, 32, 64, 32, true)}, "5 bits",
                 encode_gptq);
  expect_refused({.weight = sample_grouped(4, 24, 64, 32, true)}, "24 x 64",
                 encode_gptq);
  expect_refused({.weight = sample_grouped(4, 32, 96, 64, true)},
                 "a short last group", encode_gptq);
  GroupedIntWeight wide = sample_grouped(4, 32, 64, 32, true);
  wide.scale_dtype = DType::kF32;
  expect_refused({.weight = wide}, "scale_dtype: f16", encode_gptq);
  expect_refused({.weight = sample_grouped(4, 32, 64, 32, true),
                  .input = {.kind = ActivationQuant::Kind::kInt}},
                 "rounded inputs", encode_gptq);
  expect_refused({.weight = sample_fp8(32, 64, 1, 64)}, "fp8", encode_gptq);
}

TEST(Gptq, RefusesFilesThatCannotBeRight) {
  const LinearWeights linear{.weight = sample_grouped(3, 32, 64, 32, false)};
  const EncodedLinear good = encode_gptq("p", linear);
  const auto refused = [&](std::size_t tensor, const NamedTensor& with) {
    std::vector<NamedTensor> tensors = good.tensors;
    tensors[tensor] = with;
    EXPECT_THROW(read_with(tensors, good.scheme), Error) << with.name;
  };
  refused(0, tensor_of("p.qweight", DType::kI32, {5, 32}, Words(160)));
  refused(1, tensor_of("p.qzeros", DType::kI32, {2, 4}, Words(8)));
  refused(2, float_tensor("p.scales", DType::kF16, {3, 32},
                          std::vector<float>(96, 1)));
  refused(3, tensor_of("p.g_idx", DType::kI32, {64},
                       std::vector<std::int32_t>(64, -1)));
  refused(3, tensor_of("p.g_idx", DType::kI32, {64},
                       std::vector<std::int32_t>(64, 2)));
  EXPECT_THROW(read_with(good.tensors, scheme_of("gptq", 5, false, 32)), Error);
}

std::map<std::string, DescribedLinear> described(
    const std::vector<std::pair<std::string, EncodedLinear>>& linears) {
  std::map<std::string, DescribedLinear> all;
  for (const auto& [name, e] : linears) all[name] = {e.scheme, e.extension};
  return all;
}

TEST(Gptq, LeavesWhatIsStoredAsNumbersAlone) {
  const std::vector<NamedTensor> tensors{
      float_tensor("p.weight", DType::kF32, {1, 2}, std::vector<float>{1, 2})};
  const auto owner =
      std::make_shared<const std::string>(write_safetensors(tensors, {}));
  const auto reader =
      read_safetensors({std::as_bytes(std::span(*owner)), owner}, "m");
  const LinearScheme scheme = scheme_of("gptq", 4, true, 32);
  const LinearExtension none;
  const StoredLinear stored{*reader, "p", scheme, none, 0, "gptq"};
  EXPECT_TRUE(
      std::holds_alternative<DenseWeight>(read_linear(stored, "m").weight));
}

TEST(Gptq, SaysInDynamicWhatDiffers) {
  const auto four =
      encode_gptq("a", {.weight = sample_grouped(4, 32, 64, 32, true)});
  const auto two =
      encode_gptq("b", {.weight = sample_grouped(2, 32, 64, 64, true)});
  const std::string text =
      gptq_config(described({{"m.0.a", four}, {"m.1.a", four}, {"m.1.b", two}}),
                  {"m.2.c", "lm_head"}, {.of_class = {{"m.", "n."}}});
  const auto j = nlohmann::json::parse(text);
  EXPECT_EQ(j["bits"], 4);
  EXPECT_EQ(j["group_size"], 32);
  EXPECT_EQ(j["checkpoint_format"], "gptq");
  EXPECT_EQ(j["lm_head"], false);
  EXPECT_EQ(j["dynamic"]["+:^n\\.1\\.b$"]["bits"], 2);
  EXPECT_EQ(j["dynamic"]["+:^n\\.1\\.b$"]["group_size"], -1);
  EXPECT_TRUE(j["dynamic"].contains("-:^n\\.2\\.c$"));
  const auto config = parse_quantization_config(
      R"({"quantization_config":)" + text + "}", "config.json");
  EXPECT_EQ(config.scheme_of("n.0.a").weights->bits, 4);
  EXPECT_EQ(config.scheme_of("n.1.b").weights->bits, 2);
  EXPECT_FALSE(config.scheme_of("n.2.c").weights);
}

TEST(Awq, OrdersNibblesAsTheReferenceDoes) {
  // Codes 3 8 13 2 7 12 1 6 of outputs 0 to 7.
  auto w = pattern(4, 8, 32, 32, [](std::size_t) { return 8; });
  Matrix<std::uint8_t> codes(8, 32);
  for (std::size_t o = 0; o < 8; ++o) {
    for (std::size_t i = 0; i < 32; ++i) {
      codes(o, i) = static_cast<std::uint8_t>((5 * o + 3) % 16);
    }
  }
  w.codes = pack_rows(std::as_const(codes).view(), 4);
  w.zeros.assign(8, 0);
  for (std::size_t o = 0; o < 8; ++o) {
    w.zeros[o] = static_cast<std::uint8_t>((5 * o + 3) % 16);
  }
  const EncodedLinear e = encode_awq("p", {.weight = w});
  EXPECT_EQ(values_of<std::uint32_t>(find(e, "p.qweight")),
            Words(32, 0x6c2817d3));
  EXPECT_EQ(values_of<std::uint32_t>(find(e, "p.qzeros")), Words{0x6c2817d3});
  expect_same_linear(read_with(e.tensors, scheme_of("awq", 4, false, 32)),
                     {.weight = w}, "awq");
}

TEST(Awq, WritesTheZeroPointsOfSymmetricWeights) {
  const LinearWeights linear{.weight = sample_grouped(4, 16, 64, 32, true),
                             .bias = std::vector<float>(16, 1)};
  const EncodedLinear e = encode_awq("p", linear);
  EXPECT_EQ(values_of<std::uint32_t>(find(e, "p.qzeros")),
            Words(4, 0x88888888));
  expect_same_linear(read_with(e.tensors, scheme_of("awq", 4, false, 32)),
                     linear, "awq");
  const auto j = nlohmann::json::parse(
      awq_config(described({{"m.a", e}}), {"lm_head"}, {}));
  EXPECT_EQ(j["group_size"], 32);
  EXPECT_EQ(j["version"], "gemm");
  EXPECT_EQ(j["modules_to_not_convert"], nlohmann::json({"lm_head"}));
}

TEST(Awq, RefusesWhatItCannotHold) {
  expect_refused({.weight = sample_grouped(3, 32, 64, 32, true)}, "3 bits",
                 encode_awq);
  expect_refused({.weight = sample_grouped(4, 20, 64, 32, true)}, "20 outputs",
                 encode_awq);
  GroupedIntWeight ordered = sample_grouped(4, 32, 64, 32, true);
  for (std::size_t i = 0; i < 64; ++i) {
    ordered.g_idx.push_back(static_cast<std::uint32_t>(i % 2));
  }
  expect_refused({.weight = ordered}, "act-order", encode_awq);
}

TEST(QuantizationConfig, ReadsGptqAwqAndAutoRound) {
  const auto parse = [](const std::string& object) {
    return parse_quantization_config(
        R"({"quantization_config":)" + object + "}", "config.json");
  };
  const auto gptq = parse(
      R"({"quant_method":"gptq","bits":3,"group_size":-1,"desc_act":true,
          "sym":false,"checkpoint_format":"gptq_v2",
          "dynamic":{"-:.*gate.*":{},"+:.*up.*":{"bits":8,"group_size":64}}})");
  EXPECT_EQ(gptq.scheme_of("a.down").format, "gptq_v2");
  EXPECT_EQ(gptq.scheme_of("a.down").weights->group_size, 0u);
  EXPECT_EQ(gptq.scheme_of("a.up").weights->bits, 8);
  EXPECT_FALSE(gptq.scheme_of("a.gate").weights);
  // The first rule that matches counts, whatever its sign and letters.
  const auto ordered = parse(
      R"({"quant_method":"gptq","dynamic":{"+:.*up.*":{"bits":8},
          "-:.*mlp.*":{},"+:.*a.*":{"bits":2},"+:.*down.*":{"bits":3}}})");
  EXPECT_EQ(ordered.scheme_of("a.mlp.up").weights->bits, 8);
  EXPECT_FALSE(ordered.scheme_of("a.mlp.gate").weights);
  EXPECT_EQ(ordered.scheme_of("a.down").weights->bits, 2);
  EXPECT_EQ(ordered.scheme_of("b.down").weights->bits, 3);
  EXPECT_EQ(parse(R"({"quant_method":"awq","w_bit":4,"q_group_size":64,
                      "version":"GEMM"})")
                .scheme_of("a")
                .weights->group_size,
            64u);
  const auto some = parse(
      R"({"quant_method":"awq","modules_to_not_convert":["0.mlp","lm_head"]})");
  EXPECT_FALSE(some.scheme_of("model.layers.0.mlp.up_proj").weights);
  EXPECT_FALSE(some.scheme_of("lm_head").weights);
  EXPECT_TRUE(some.scheme_of("model.layers.10amlp.up_proj").weights);
  const auto auto_round = parse(
      R"({"quant_method":"auto-round","bits":2,"group_size":32,"sym":false,
          "packing_format":"auto_round","extra_config":{"b":{"bits":16},
          "c":{"bits":8}}})");
  EXPECT_EQ(auto_round.scheme_of("a").format, "gptq_v2");
  EXPECT_FALSE(auto_round.scheme_of("b").weights);
  EXPECT_EQ(auto_round.scheme_of("c").weights->bits, 8);
  for (const char* const refused :
       {R"({"quant_method":"awq","version":"gemv"})",
        R"({"quant_method":"gptq","checkpoint_format":"marlin"})",
        R"({"quant_method":"gptq","bits":0})",
        R"({"quant_method":"gptq","dynamic":[]})",
        R"({"quant_method":"auto-round","packing_format":"x"})",
        R"({"quant_method":"auto-round","data_type":"mx_fp"})"}) {
    EXPECT_THROW(parse(refused), Error) << refused;
  }
}

}  // namespace
}  // namespace llmpress
