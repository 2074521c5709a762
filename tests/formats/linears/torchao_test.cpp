#include "formats/linears/torchao.h"

#include <gtest/gtest.h>

#include <memory>

#include "compress/core/error.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/linears/sample_linears.h"

namespace llmpress {
namespace {

using Kind = ActivationQuant::Kind;
using Range = ActivationQuant::Range;

struct Stored {
  std::string description{};
  std::vector<NamedTensor> tensors{};
};

LinearWeights read(const Stored& stored) {
  const auto owner = std::make_shared<const std::string>(write_safetensors(
      stored.tensors, {{"p.weight", stored.description}, {"format", "pt"}}));
  const auto reader =
      read_safetensors({std::as_bytes(std::span(*owner)), owner}, "m");
  static const LinearScheme plain;
  return read_linear({*reader, "p", plain, {}, 0, "torchao"}, "m");
}

std::string refusal(const Stored& stored) {
  try {
    (void)read(stored);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

constexpr const char* kFloat32 =
    R"("dtype": {"_type": "torch.dtype", "_data": "float32"})";

std::string described(const std::string& type, const std::string& data) {
  return R"({"_type": ")" + type + R"(", "_data": {)" + data + ", " + kFloat32 +
         R"(}, "_tensor_data_names": ["qdata", "scale"]})";
}

NamedTensor octets(const std::string& name, DType dtype,
                   const std::vector<std::size_t>& shape,
                   const std::vector<int>& values) {
  std::vector<std::uint8_t> bytes;
  for (const int v : values) bytes.push_back(static_cast<std::uint8_t>(v));
  return tensor_of("p._weight_" + name, dtype, shape, bytes);
}

NamedTensor floats(const std::string& name,
                   const std::vector<std::size_t>& shape,
                   const std::vector<float>& values) {
  return tensor_of("p._weight_" + name, DType::kF32, shape, values);
}

// What quantize_ of torchao 0.18 makes of W[o, i] = ((13 o + 7 i) mod 17 - 8) /
// 4 of 2 x 8, and what its dequantize() makes of that.
struct Golden {
  Stored stored{};
  std::vector<float> values{};  // [2, 8]
  std::string type{};           // as describe() says
};

Golden int8_a_row(const std::string& kwargs = "null") {
  const float s = 0.01568627543747425f;
  return {{described("Int8Tensor", R"("act_quant_kwargs": )" + kwargs +
                                       R"(, "reduce_range": false,
                                          "block_size": [1, 8])"),
           {octets("qdata", DType::kI8, {2, 8},
                   {-127, -16, 96, -64, 48, -112, 0, 112, 80, -80, 32, -127,
                    -16, 96, -64, 48}),
            floats("scale", {2, 1}, {s, s}),
            octets("zero_point", DType::kI8, {2, 1}, {0, 0})}},
          {-1.992156982421875f, -0.250980406999588f, 1.5058825016021729f,
           -1.003921627998352f, 0.7529412508010864f, -1.7568628787994385f, 0,
           1.7568628787994385f, 1.2549020051956177f, -1.2549020051956177f,
           0.501960813999176f, -1.992156982421875f, -0.250980406999588f,
           1.5058825016021729f, -1.003921627998352f, 0.7529412508010864f},
          "int8 channel"};
}

Golden int8_a_group() {
  return {{described("Int8Tensor", R"("act_quant_kwargs": null,
                       "reduce_range": false, "block_size": [1, 4])"),
           {octets("qdata", DType::kI8, {2, 8},
                   {-127, -16, 96, -64, 55, -127, 0, 127, 80, -80, 32, -127,
                    -21, 127, -85, 64}),
            floats("scale", {2, 2},
                   {0.01568627543747425f, 0.013725490309298038f,
                    0.01568627543747425f, 0.0117647061124444f}),
            octets("zero_point", DType::kI8, {2, 2}, {0, 0, 0, 0})}},
          {-1.992156982421875f, -0.250980406999588f, 1.5058825016021729f,
           -1.003921627998352f, 0.7549019455909729f, -1.743137240409851f, 0,
           1.743137240409851f, 1.2549020051956177f, -1.2549020051956177f,
           0.501960813999176f, -1.992156982421875f, -0.24705882370471954f,
           1.4941176176071167f, -1.0f, 0.7529411911964417f},
          "int8 g4 sym"};
}

Golden float8_a_row() {
  const float s = 0.004464285913854837f;
  return {{described("Float8Tensor", R"("block_size": [1, 8],
                       "mm_config": null, "act_quant_kwargs": null)"),
           {octets("qdata", DType::kF8E4M3, {2, 8},
                   {254, 230, 122, 246, 114, 252, 0, 124, 121, 249, 110, 254,
                    230, 122, 246, 114}),
            floats("scale", {2, 1}, {s, s})}},
          {-2, -0.25f, 1.4285714626312256f, -1, 0.7142857313156128f,
           -1.7142858505249023f, 0, 1.7142858505249023f, 1.2857143878936768f,
           -1.2857143878936768f, 0.5f, -2, -0.25f, 1.4285714626312256f, -1,
           0.7142857313156128f},
          "fp8_e4m3 channel"};
}

Golden int4_asymmetric(const std::string& inputs = "null") {
  return {{described("IntxUnpackedToInt8Tensor",
                     R"("target_dtype": {"_type": "torch.dtype",
                       "_data": "int4"}, "block_size": [1, 4],
                       "activation_quantization": )" +
                         inputs),
           {octets("qdata", DType::kI8, {2, 8},
                   {-8, 0, 7, -3, 3, -8, 0, 7, 7, -5, 3, -8, -4, 7, -8, 2}),
            floats("scale", {2, 2},
                   {0.23333333432674408f, 0.23333333432674408f,
                    0.21666666865348816f, 0.1666666716337204f}),
            octets("zero_point", DType::kI8, {2, 2}, {1, 0, 1, -2})}},
          {-2.0999999046325684f, -0.23333333432674408f, 1.399999976158142f,
           -0.9333333373069763f, 0.699999988079071f, -1.8666666746139526f, 0,
           1.6333333253860474f, 1.2999999523162842f, -1.2999999523162842f,
           0.4333333373069763f, -1.9500000476837158f, -0.3333333432674408f,
           1.5f, -1, 0.6666666865348816f},
          "int4 g4 asym"};
}

// Int4Tensor needs a graphics processor to be made: its parts by
// _int4_row_quantize_zp_precomputed_qparams and pack_int4, its numbers by
// _int4_row_dequantize_zp.
Golden int4_nibbles() {
  return {{R"({"_type": "Int4Tensor", "_data": {"activation_dtype": {"_type":
             "torch.dtype", "_data": "bfloat16"}, "block_size": [1, 4],
             "shape": [2, 8]},
             "_tensor_data_names": ["qdata", "scale", "zero_point"]})",
           {octets("qdata", DType::kI8, {2, 4},
                   {8, -57, -125, 112, -73, -124, 124, 40}),
            floats("scale", {2, 2},
                   {0.23333333432674408f, 0.21666666865348816f,
                    0.23333333432674408f, 0.1666666716337204f}),
            floats("zero_point", {2, 2},
                   {-0.13333332538604736f, -0.2666666507720947f,
                    0.11666667461395264f, 0.3333333730697632f})}},
          {-2, -0.13333332538604736f, 1.5f, -1.066666603088379f,
           0.8166666030883789f, -1.75f, 0.11666667461395264f, 1.75f, 1.25f,
           -1.350000023841858f, 0.5999999046325684f, -2, -0.3333333134651184f,
           1.5f, -1, 0.6666667461395264f},
          "int4 g4 float-zero"};
}

TEST(Torchao, ReadsWhatTorchaoWrites) {
  for (const Golden& golden : {int8_a_row(), int8_a_group(), float8_a_row(),
                               int4_asymmetric(), int4_nibbles()}) {
    const LinearWeights linear = read(golden.stored);
    const MatrixF W = dequantize(linear.weight);
    ASSERT_EQ(W.rows(), 2u);
    ASSERT_EQ(W.cols(), 8u);
    // A real zero point is rounded once more.
    const auto* const groups = std::get_if<GroupedIntWeight>(&linear.weight);
    const bool real = groups != nullptr && !groups->float_zeros.empty();
    EXPECT_EQ(real, golden.type.ends_with("float-zero"));
    for (std::size_t k = 0; k < W.size(); ++k) {
      EXPECT_NEAR(W.data()[k], golden.values[k], real ? 0x1p-21f : 0)
          << golden.type << ' ' << k;
    }
    EXPECT_EQ(describe(linear.weight), golden.type);
    EXPECT_EQ(linear.input, ActivationQuant{}) << golden.type;
  }
}

TEST(Torchao, OneScaleForAllIsOne) {
  Golden whole = float8_a_row();
  whole.stored.description =
      described("Float8Tensor", R"("block_size": [2, 8])");
  whole.stored.tensors[1] = floats("scale", {1, 1}, {0.5f});
  EXPECT_EQ(describe(read(whole.stored).weight), "fp8_e4m3 tensor");
  Golden int8 = int8_a_row();
  int8.stored.description = described("Int8Tensor", R"("block_size": [2, 8])");
  int8.stored.tensors[1] = floats("scale", {1, 1}, {0.5f});
  int8.stored.tensors.pop_back();
  EXPECT_EQ(read(int8.stored).weight.index(),
            PackedWeight(Int8Weight{}).index());
}

TEST(Torchao, InputsAreRoundedAsTheWeightsSay) {
  const auto rows = [](const std::string& granularity,
                       const std::string& mapping) {
    return read(int8_a_row(R"({"_type": "QuantizeTensorToInt8Kwargs", "_data":
                             {"granularity": {"_type": ")" +
                           granularity + R"(", "_data": {"dim": -1}},
                             "mapping_type": {"_type": "MappingType", "_data": ")" +
                           mapping + R"("}, "reduce_range": false}})")
                    .stored)
        .input;
  };
  EXPECT_EQ(rows("PerRow", "SYMMETRIC"), (ActivationQuant{.kind = Kind::kInt}));
  EXPECT_EQ(
      rows("PerTensor", "ASYMMETRIC"),
      (ActivationQuant{
          .kind = Kind::kInt, .range = Range::kTensor, .symmetric = false}));
  EXPECT_EQ(read(int4_asymmetric(R"("int8_asym_per_token")").stored).input,
            (ActivationQuant{.kind = Kind::kInt, .symmetric = false}));
  Golden float8 = float8_a_row();
  float8.stored.description = described("Float8Tensor", R"("block_size": [1, 8],
      "act_quant_kwargs": {"_type": "QuantizeTensorToFloat8Kwargs", "_data": {
      "float8_dtype": {"_type": "torch.dtype", "_data": "float8_e4m3fn"},
      "granularity": {"_type": "PerRow", "_data": {"dim": -1}},
      "hp_value_lb": null, "hp_value_ub": null}})");
  EXPECT_EQ(read(float8.stored).input, (ActivationQuant{.kind = Kind::kFp8}));
}

TEST(Torchao, RefusesByNameWhatItDoesNotRead) {
  Stored other = int8_a_row().stored;
  other.description =
      described("Int4TilePackedTo4dTensor", R"("block_size": [1, 8])");
  EXPECT_TRUE(has(refusal(other), "Int4TilePackedTo4dTensor"));
  Stored scaled = int8_a_row().stored;
  scaled.tensors.push_back(
      floats("act_pre_scale", {8}, {1, 1, 1, 1, 1, 1, 1, 1}));
  EXPECT_TRUE(has(refusal(scaled), "act_pre_scale"));
  EXPECT_TRUE(has(refusal(int8_a_row(R"({"_type": "K", "_data": {"granularity":
                      {"_type": "PerBlock", "_data": {}}, "mapping_type":
                      {"_data": "SYMMETRIC"}}})")
                              .stored),
                  "PerBlock"));
}

TEST(Torchao, RefusesDamagedDescriptionsAndTensors) {
  const Stored good = int8_a_group().stored;
  for (const char* bad :
       {"", "[]", "{}", R"({"_type": 3, "_data": {}})",
        R"({"_type": "Int8Tensor"})", R"({"_type": "Int8Tensor", "_data": 1})",
        R"({"_type": "Int8Tensor", "_data": {"block_size": [1]}})",
        R"({"_type": "Int8Tensor", "_data": {"block_size": [1, 0]}})",
        R"({"_type": "Int8Tensor", "_data": {"block_size": [1, 3]}})",
        R"({"_type": "Int8Tensor", "_data": {"block_size": [1, -4]}})",
        R"({"_type": "Int8Tensor", "_data": {"block_size": [1, 8]}})"}) {
    Stored stored = good;
    stored.description = bad;
    EXPECT_NE(refusal(stored), "") << bad;
  }
  for (std::size_t k = 0; k < good.tensors.size(); ++k) {
    Stored stored = good;
    stored.tensors[k].dtype = DType::kU16;
    stored.tensors[k].bytes.resize(stored.tensors[k].bytes.size() * 2);
    if (k == 1) stored.tensors[k].bytes.resize(8);
    EXPECT_NE(refusal(stored), "") << k;
    stored = good;
    stored.tensors[k].shape = {1, stored.tensors[k].shape[1] * 2};
    EXPECT_NE(refusal(stored), "") << k;
  }
  Stored wide = int4_asymmetric().stored;
  wide.tensors[0] =
      octets("qdata", DType::kI8, {2, 8},
             {-8, 0, 7, 8, 3, -8, 0, 7, 7, -5, 3, -8, -4, 7, -8, 2});
  EXPECT_TRUE(has(refusal(wide), "beyond 4 bits"));
  Stored alone = good;
  alone.tensors.erase(alone.tensors.begin() + 1);
  EXPECT_NE(refusal(alone), "");
}

TEST(Torchao, AGroupOfScaleZeroIsItsZeroPoint) {
  Golden golden = int4_nibbles();
  golden.stored.tensors[1] = floats("scale", {2, 2}, {0, 0, 0, 0});
  golden.stored.tensors[2] = floats("zero_point", {2, 2}, {0.75f, 0, 0, -2});
  const MatrixF W = dequantize(read(golden.stored).weight);
  EXPECT_EQ(W(0, 0), 0.75f);
  EXPECT_EQ(W(0, 7), 0.0f);
  EXPECT_EQ(W(1, 3), 0.0f);
  EXPECT_EQ(W(1, 4), -2.0f);
}

}  // namespace
}  // namespace llmpress
