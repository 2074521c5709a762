#include "formats/linears/compressed_tensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "compress/core/error.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/bitsandbytes.h"
#include "formats/linears/packed_words.h"
#include "tests/formats/linears/sample_linears.h"

namespace llmpress {
namespace {

using Words = std::vector<std::uint32_t>;
using Shape = std::vector<std::size_t>;

// Tensors in memory, as a file would hold them.
std::unique_ptr<TensorReader> reader_of(
    const std::vector<NamedTensor>& tensors) {
  auto owner =
      std::make_shared<const std::string>(write_safetensors(tensors, {}));
  return read_safetensors({std::as_bytes(std::span(*owner)), owner}, "m");
}

LinearWeights read_with(const std::vector<NamedTensor>& tensors,
                        const LinearScheme& scheme,
                        const LinearExtension& extension = {},
                        float threshold = 0) {
  const auto reader = reader_of(tensors);
  return read_linear({*reader, "p", scheme, extension, threshold}, "m");
}

const NamedTensor& find(const std::vector<NamedTensor>& tensors,
                        const std::string& name) {
  for (const NamedTensor& t : tensors) {
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

Words words_of(const std::string& hex) {
  Words words;
  for (std::size_t at = 0; at < hex.size(); at += 9) {
    words.push_back(
        static_cast<std::uint32_t>(std::stoul(hex.substr(at, 8), nullptr, 16)));
  }
  return words;
}

std::vector<std::uint8_t> octets_of(const std::string& hex) {
  std::vector<std::uint8_t> octets;
  for (std::size_t at = 0; at < hex.size(); at += 2) {
    octets.push_back(
        static_cast<std::uint8_t>(std::stoul(hex.substr(at, 2), nullptr, 16)));
  }
  return octets;
}

LinearScheme int_scheme(int bits, const std::string& strategy = "channel",
                        std::size_t group_size = 0, bool symmetric = true) {
  return {.weights = QuantArgs{.bits = bits,
                               .symmetric = symmetric,
                               .strategy = strategy,
                               .group_size = group_size}};
}

// 33 codes (5 i) mod 2^bits; the words of the reference's new and old packers.
struct Packing {
  int bits;
  const char* dense;
  const char* old;
};
const Packing kPackings[] = {
    {2, "e4e4e4e4 e4e4e4e4 00000000", "e4e4e4e4 e4e4e4e4 00000000"},
    {3, "a878cea8 cea878ce 78cea878 00000000",
     "2878cea8 3aa1e33a 0cea878c 0000001e"},
    {4, "3e94fa50 b61c72d8 3e94fa50 b61c72d8 00000000",
     "3e94fa50 b61c72d8 3e94fa50 b61c72d8 00000000"},
    {5, "b347a8a0 cbc9a81f eab05983 b89b924f dda2c38b 00000000",
     "3347a8a0 2f26a07e 2b05983c 26e493fa 22c38bb8 00000376"},
    {6, "543ca140 2b688de6 2c607cdf 647da550 2f78ceea 6d644c1c 00000020",
     "143ca140 2da23799 0607cdf2 1f69540b 38ceea64 113070bd 000206d6"},
    {7,
     "41e28280 a84678c9 0bc6ec96 aad0971a bb4e4bf6 e0bef8e7 365888c0 00000020",
     "01e28280 04678c94 06ec96a8 0971a0bc 0bf6aad0 0e7bb4e4 00e0bef8 0365888c "
     "00000020"},
};

std::vector<std::uint8_t> packing_codes(int bits) {
  std::vector<std::uint8_t> codes;
  for (int i = 0; i < 33; ++i) {
    codes.push_back(static_cast<std::uint8_t>(5 * i % (1 << bits)));
  }
  return codes;
}

TEST(CompressedTensors, PacksCodesAsTheReferenceDoes) {
  for (const Packing& p : kPackings) {
    GroupedIntWeight w{.out = 1,
                       .in = 33,
                       .bits = p.bits,
                       .group_size = 33,
                       .symmetric = true,
                       .scales = {1}};
    w.codes = pack_rows({packing_codes(p.bits), 1, 33}, p.bits);
    const auto encoded = encode_compressed_tensors("p", {.weight = w});
    const NamedTensor& packed = find(encoded.tensors, "p.weight_packed");
    EXPECT_EQ(values_of<std::uint32_t>(packed), words_of(p.dense)) << p.bits;
    EXPECT_EQ(packed.dtype, DType::kI32);
    EXPECT_EQ(values_of<std::int64_t>(find(encoded.tensors, "p.weight_shape")),
              (std::vector<std::int64_t>{1, 33}));
    EXPECT_EQ(find(encoded.tensors, "p.weight_scale").shape, (Shape{1, 1}));
  }
}

TEST(CompressedTensors, UnpacksBothPackingsOfTheReference) {
  for (const Packing& p : kPackings) {
    std::vector<std::uint8_t> codes(33);
    unpack_words(words_of(p.dense), p.bits, WordPacking::kDense, codes);
    EXPECT_EQ(codes, packing_codes(p.bits)) << p.bits;
    unpack_words(words_of(p.old), p.bits, WordPacking::kOld, codes);
    EXPECT_EQ(codes, packing_codes(p.bits)) << p.bits;
  }
}

// floor(32 / bits) codes a word.
Words old_words(const std::vector<std::uint8_t>& codes, int bits) {
  const auto per_word = static_cast<std::size_t>(32 / bits);
  Words words((codes.size() + per_word - 1) / per_word);
  for (std::size_t k = 0; k < codes.size(); ++k) {
    const std::size_t shift = k % per_word * static_cast<std::size_t>(bits);
    words[k / per_word] |= std::uint32_t{codes[k]} << shift;
  }
  return words;
}

TEST(CompressedTensors, ReadsTheOldPackingByItsWidth) {
  for (int bits = 2; bits <= 8; ++bits) {
    // 64 rows of one group; zero points are packed down the column likewise.
    GroupedIntWeight w = sample_grouped(bits, 64, 64, 64, false);
    const auto codes = unpack_rows(w);
    Words packed;
    for (std::size_t o = 0; o < 64; ++o) {
      const auto row = codes.row(o);
      const Words words = old_words({row.begin(), row.end()}, bits);
      packed.insert(packed.end(), words.begin(), words.end());
    }
    const Words zeros = old_words(w.zeros, bits);
    const LinearWeights linear = read_with(
        {tensor_of("p.weight_packed", DType::kI32, {64, packed.size() / 64},
                   packed),
         tensor_of("p.weight_zero_point", DType::kI32, {zeros.size(), 1},
                   zeros),
         tensor_of<std::int64_t>("p.weight_shape", DType::kI64, {2}, {64, 64}),
         float_tensor("p.weight_scale", DType::kF16, {64, 1}, w.scales)},
        int_scheme(bits, "channel", 0, false));
    expect_same_linear(linear, {.weight = w}, formatted("{} bits", bits));
  }
}

TEST(CompressedTensors,
     StoresZeroPointsAlongDimensionZeroWithTheOffsetOfCodes) {
  // Eight rows, two groups: column 0 has zeros 0..7, column 1 all 15.
  GroupedIntWeight w = sample_grouped(4, 8, 8, 4, false);
  for (std::size_t o = 0; o < 8; ++o) {
    w.zeros[o * 2] = static_cast<std::uint8_t>(o);
    w.zeros[o * 2 + 1] = 15;
  }
  const auto encoded = encode_compressed_tensors("p", {.weight = w});
  const NamedTensor& zeros = find(encoded.tensors, "p.weight_zero_point");
  EXPECT_EQ(zeros.shape, (Shape{1, 2}));
  EXPECT_EQ(values_of<std::uint32_t>(zeros), (Words{0x76543210, 0xffffffff}));
  EXPECT_FALSE(encoded.scheme.weights->symmetric);
}

TEST(CompressedTensors, ReadsTheReferencesInt4Weights) {
  // x[i] = ((37 i + 11) mod 101 - 50) / 32, one group of 32, scale amax / 7.5.
  const Words words = words_of("b5f94d82 a4e83c71 93d72b6f 82c60a5e");
  const float scale = std::bit_cast<float>(0x3e555555u);
  const LinearWeights linear = read_with(
      {tensor_of("p.weight_packed", DType::kI32, {1, 4}, words),
       tensor_of<std::int64_t>("p.weight_shape", DType::kI64, {2}, {1, 32}),
       tensor_of<float>("p.weight_scale", DType::kF32, {1, 1}, {scale})},
      int_scheme(4, "group", 32));
  const MatrixF W = dequantize(linear.weight);
  const int codes[] = {-6, 0, 5, -4, 1, 7, -3, 3};
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(W(0, i), scale * static_cast<float>(codes[i])) << i;
  }
}

TEST(CompressedTensors, ReadsTheReferencesMicroScaledWeights) {
  const auto nv = octets_of(
      "9fe6724cafe6603dc7f5691ed6f35b9ee6724dbfe5603dc7f46a1ed6735b9ee6");
  const std::vector<float> global{std::bit_cast<float>(0x44d70a3du)};
  const std::vector<NamedTensor> tensors{
      tensor_of("p.weight_packed", DType::kU8, {1, 32}, nv),
      tensor_of("p.weight_scale", DType::kF8E4M3, {1, 4},
                octets_of("7d7e7d7e")),
      tensor_of("p.weight_global_scale", DType::kF32, {1}, global)};
  const auto w = std::get<MicroFp4Weight>(read_with(tensors, {}).weight);
  EXPECT_EQ(w.kind, MicroFp4Kind::kNvfp4);
  // x[0] = -1.21875 and x[1] = -0.0625: codes 0xf = -6, 0x9 = -0.5.
  const float scale = e4m3_to_float(0x7d) / global[0];
  EXPECT_EQ(dequantize(w)(0, 0), -6 * scale);
  EXPECT_EQ(dequantize(w)(0, 1), -0.5f * scale);
  // Written again, octet for octet.
  const auto encoded = encode_compressed_tensors("p", {.weight = w});
  for (const NamedTensor& t : tensors) {
    EXPECT_EQ(find(encoded.tensors, t.name).bytes, t.bytes) << t.name;
    EXPECT_EQ(find(encoded.tensors, t.name).dtype, t.dtype) << t.name;
  }
  EXPECT_EQ(encoded.scheme.format, "nvfp4-pack-quantized");

  const auto mx = read_with(
      {tensor_of("p.weight_packed", DType::kU8, {1, 16},
                 octets_of("8ee6724cafe6603dc7f56a1ed7f45b9e")),
       tensor_of("p.weight_scale", DType::kU8, {1, 1}, octets_of("7d"))},
      {});
  // 0xe = -4, 0x8 = -0, at 2^(0x7d - 127) = 1/4.
  EXPECT_EQ(dequantize(mx.weight)(0, 0), -1.0f);
  EXPECT_EQ(dequantize(mx.weight)(0, 1), 0.0f);
  EXPECT_EQ(describe(mx.weight), "mxfp4");
}

// Groups that do not divide the inputs, or that go by the order of activations.
bool has_odd_groups(const PackedWeight& weight) {
  const auto* const w = std::get_if<GroupedIntWeight>(&weight);
  return w != nullptr && (w->in % w->group_size != 0 || !w->g_idx.empty());
}

TEST(CompressedTensors, SaysForeignToWhatOthersWouldReadWrongly) {
  for (const SampleLinear& s : sample_linears()) {
    const auto encoded = encode_compressed_tensors("p", s.linear);
    const bool own = encoded.scheme.format == kOwnFormat;
    const bool foreign =
        s.linear.input_hadamard != 0 || s.linear.input.outlier_threshold != 0 ||
        s.what == "float zeros" || s.what == "e5m2" ||
        s.what.starts_with("table4") || s.what == "micro fp4 ragged" ||
        s.what.starts_with("sparse") || s.what == "gguf blocks" ||
        has_odd_groups(s.linear.weight);
    EXPECT_EQ(own, foreign) << s.what << " " << describe(s.linear.weight);
  }
}

TEST(CompressedTensors, ReadsWholeOctetsOfFewerBits) {  // naive-quantized
  const auto linear = read_with(
      {tensor_of<std::int8_t>("p.weight", DType::kI8, {2, 4},
                              {-8, 7, 0, 1, 2, 3, 4, -5}),
       tensor_of<float>("p.weight_scale", DType::kF32, {2, 2}, {1, 2, 3, 4}),
       tensor_of<std::int8_t>("p.weight_zero_point", DType::kI8, {2, 2},
                              {0, -1, 7, -8})},
      int_scheme(4, "group", 2, false));
  const MatrixF W = dequantize(linear.weight);
  const std::vector<float> wanted{-8, 7, 2, 4, -15, -12, 48, 12};
  EXPECT_EQ(std::vector<float>(W.data().begin(), W.data().end()), wanted);
}

TEST(CompressedTensors, TakesAGroupIndexOfMinusOnesForNone) {
  const GroupedIntWeight w = sample_grouped(4, 2, 16, 8, true);
  auto tensors = encode_compressed_tensors("p", {.weight = w}).tensors;
  tensors.push_back(tensor_of("p.weight_g_idx", DType::kI32, {16},
                              std::vector<std::int32_t>(16, -1)));
  expect_same_linear(read_with(tensors, int_scheme(4, "group", 8)),
                     {.weight = w}, "g_idx of -1");
}

TEST(CompressedTensors, TakesScalesOfAnyOfTheUsualShapes) {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{1, 1}}) {
    const auto linear = read_with(
        {tensor_of<std::int8_t>("p.weight", DType::kI8, {2, 1}, {3, -4}),
         tensor_of<float>("p.weight_scale", DType::kF32, shape, {0.5f})},
        int_scheme(8, "tensor"));
    EXPECT_EQ(dequantize(linear.weight)(1, 0), -2.0f);
  }
  for (const Shape& shape : {Shape{2}, Shape{2, 1}}) {
    const auto linear = read_with(
        {tensor_of<std::int8_t>("p.weight", DType::kI8, {2, 1}, {3, -4}),
         tensor_of<float>("p.weight_scale", DType::kF32, shape, {0.5f, 2})},
        int_scheme(8));
    EXPECT_EQ(dequantize(linear.weight)(1, 0), -8.0f);
  }
}

TEST(CompressedTensors, ReadsTheFp8OfHuggingFaceWithMultiplyingInverseScales) {
  const LinearScheme scheme{.weights = QuantArgs{.floating = true,
                                                 .strategy = "block",
                                                 .block_rows = 2,
                                                 .block_cols = 2}};
  const auto linear =
      read_with({tensor_of<std::uint8_t>(
                     "p.weight", DType::kF8E4M3, {3, 3},
                     {0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0xb8}),
                 tensor_of<float>("p.weight_scale_inv", DType::kF32, {2, 2},
                                  {1, 2, 3, 4})},
                scheme);
  const MatrixF W = dequantize(linear.weight);
  EXPECT_EQ(W(0, 0), 1.0f);
  EXPECT_EQ(W(1, 2), 2.0f);
  EXPECT_EQ(W(2, 0), 3.0f);
  EXPECT_EQ(W(2, 2), -4.0f);
}

struct Refused {
  const char* what;
  std::vector<NamedTensor> tensors;
  LinearScheme scheme{};
  LinearExtension extension{};
};

TEST(CompressedTensors, RefusesWhatCannotBeRightAndSaysWhy) {
  const auto packed = [](Shape shape = {1, 4}) {
    return tensor_of("p.weight_packed", DType::kI32, shape,
                     Words(shape[0] * shape[1]));
  };
  const auto shape_of = [](std::int64_t out, std::int64_t in) {
    return tensor_of<std::int64_t>("p.weight_shape", DType::kI64, {2},
                                   {out, in});
  };
  const auto scale = [](float s = 1, Shape shape = {1, 1}) {
    return tensor_of("p.weight_scale", DType::kF32, shape,
                     std::vector<float>(shape[0] * shape[1], s));
  };
  const auto fp8 =
      tensor_of<std::uint8_t>("p.weight", DType::kF8E4M3, {1, 2}, {0x38, 0x7f});
  const auto dense = [](float x) {
    return tensor_of<float>("p.weight", DType::kF32, {2, 2}, {1, 2, 3, x});
  };
  const LinearScheme fp8_scheme{.weights = QuantArgs{.floating = true}};
  const std::vector<Refused> table{
      {"has no int weights", {packed(), shape_of(1, 32), scale()}},
      {"has no int weights", {packed(), shape_of(1, 32), scale()}, fp8_scheme},
      {"'p.weight_shape' is missing", {packed(), scale()}, int_scheme(4)},
      {"'p.weight_scale' is missing",
       {packed(), shape_of(1, 32)},
       int_scheme(4)},
      {"two positive sizes",
       {packed(), shape_of(1, -32), scale()},
       int_scheme(4)},
      {"overflows",
       {packed(), shape_of(1LL << 40, 1LL << 40), scale()},
       int_scheme(4)},
      {"words a row", {packed(), shape_of(1, 33), scale()}, int_scheme(4)},
      {"wanted [2, 4]", {packed(), shape_of(2, 32), scale()}, int_scheme(4)},
      {"1-bit", {packed(), shape_of(1, 32), scale()}, int_scheme(1)},
      {"wanted [1, 2]",
       {packed(), shape_of(1, 32), scale(1, {1, 3})},
       int_scheme(4, "group", 16)},
      {"finite", {packed(), shape_of(1, 32), scale(INFINITY)}, int_scheme(4)},
      {"'p.weight_zero_point' is missing",
       {packed(), shape_of(1, 32), scale()},
       int_scheme(4, "channel", 0, false)},
      {"g_idx",
       {packed(), shape_of(1, 32), scale(),
        tensor_of("p.weight_g_idx", DType::kI32, {32},
                  std::vector<std::int32_t>(32, 1))},
       int_scheme(4)},
      {"holds group -2",
       {packed(), shape_of(1, 32), scale(),
        tensor_of("p.weight_g_idx", DType::kI32, {32},
                  std::vector<std::int32_t>(32, -2))},
       int_scheme(4)},
      {"beyond 4 bits",
       {tensor_of<std::int8_t>("p.weight", DType::kI8, {1, 2}, {1, 8}),
        scale()},
       int_scheme(4)},
      {"F8_E4M3", {fp8}, fp8_scheme},  // no scale: not a form that we know
      {"[0, 1] is nan", {fp8, scale()}, fp8_scheme},
      {"[1, 1] is inf", {dense(INFINITY)}},
      {"[1, 1] is nan", {dense(NAN)}},
      {"is missing", {tensor_of<float>("q.weight", DType::kF32, {1, 1}, {1})}},
      {"qweight I32",
       {tensor_of<std::int32_t>("p.qweight", DType::kI32, {1, 1}, {1})}},
      {"wanted [2]",
       {dense(1), tensor_of<float>("p.bias", DType::kF32, {3}, {1, 2, 3})}},
      {"does not divide", {dense(1)}, {}, {.input_hadamard = 4}},
      {"activations of 4-bit floats",
       {dense(1)},
       {.input = QuantArgs{.bits = 4, .floating = true}}},
      {"input_scale' is missing", {dense(1)}, {.input = QuantArgs{}}},
  };
  for (const Refused& r : table) {
    try {
      read_with(r.tensors, r.scheme, r.extension);
      ADD_FAILURE() << "accepted what is wrong with: " << r.what;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(r.what), std::string::npos)
          << e.what() << "\nwanted: " << r.what;
    }
  }
}

TEST(CompressedTensors, RefusesMasksThatDisagreeWithTheirValues) {
  MatrixF W = sample_matrix(3, 12);
  for (std::size_t k = 0; k < W.size(); k += 2) W.data()[k] = 0;
  const SparseWeight good =
      make_sparse(W.view(), SparsePattern::kBitmask, DType::kF32);
  const auto encoded = encode_compressed_tensors("p", {.weight = good});
  EXPECT_NO_THROW(read_with(encoded.tensors, {}));
  for (std::size_t t = 0; t < encoded.tensors.size(); ++t) {
    auto broken = encoded.tensors;
    if (broken[t].name == "p.weight.compressed") {
      broken[t].bytes.resize(broken[t].bytes.size() - 4);
      --broken[t].shape[0];
    } else {
      broken[t].bytes[0] ^= std::byte{1};
    }
    EXPECT_THROW(read_with(broken, {}), Error) << broken[t].name;
  }
  auto beyond = encoded.tensors;
  for (NamedTensor& t : beyond) {  // bit 7 of the last octet: column 15 of 12
    if (t.name == "p.weight.bitmask") t.bytes.back() |= std::byte{0x80};
  }
  EXPECT_THROW(read_with(beyond, {}), Error);
}

// --- bitsandbytes
// -------------------------------------------------------------

TEST(Bitsandbytes, ReadsAndWritesTheReferencesTables) {
  // 64 elements of the common input, absmax 1.5625.
  const std::pair<Table4Kind, const char*> golden[] = {
      {Table4Kind::kNf4,
       "17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18e2af4c16e1"},
      {Table4Kind::kFp4,
       "a92d63c4be5a12d73c5be2a12d7bf5a92a63c4be5a02d63c4be2a12d73f5a92a"}};
  for (const auto& [kind, hex] : golden) {
    const Table4Weight w{.out = 8,
                         .in = 8,
                         .kind = kind,
                         .codes = octets_of(hex),
                         .absmax = {1.5625f}};
    const auto encoded = encode_bitsandbytes("p", {.weight = w}, DType::kF16);
    const std::string name = kind == Table4Kind::kNf4 ? "nf4" : "fp4";
    const NamedTensor& state =
        find(encoded.tensors, "p.weight.quant_state.bitsandbytes__" + name);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(state.bytes.data()),
                          state.bytes.size()),
              "{\"quant_type\": \"" + name +
                  "\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": "
                  "[8, 8]}");
    EXPECT_EQ(find(encoded.tensors, "p.weight").shape, (Shape{32, 1}));
    EXPECT_EQ(find(encoded.tensors, "p.weight.absmax").shape, (Shape{1}));
    const LinearWeights back = read_with(encoded.tensors, {});
    expect_same_linear(back, {.weight = w}, name);
    const MatrixF W = dequantize(back.weight);
    for (std::size_t i = 0; i < 64; ++i) {
      // Within half of the tables' widest gap, 1/3 of absmax.
      const float x = (static_cast<float>((i * 37 + 11) % 101) - 50.0f) / 32.0f;
      EXPECT_NEAR(W.data()[i], x, 1.5625f / 6 * 1.0001f) << name << " " << i;
    }
  }
}

TEST(Bitsandbytes, NestsScalesAsTheReferenceDoes) {
  const Table4Weight w = sample_table4(Table4Kind::kNf4, 40, 500, true);
  const auto encoded = encode_bitsandbytes("p", {.weight = w}, DType::kBF16);
  EXPECT_EQ(find(encoded.tensors, "p.weight.absmax").dtype, DType::kU8);
  EXPECT_EQ(find(encoded.tensors, "p.weight.nested_absmax").shape, (Shape{2}));
  EXPECT_EQ(find(encoded.tensors, "p.weight.nested_quant_map").shape,
            (Shape{256}));
  const NamedTensor& state =
      find(encoded.tensors, "p.weight.quant_state.bitsandbytes__nf4");
  EXPECT_EQ(
      std::string(reinterpret_cast<const char*>(state.bytes.data()),
                  state.bytes.size()),
      "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", "
      "\"shape\": [40, 500], \"nested_blocksize\": 256, \"nested_dtype\": "
      "\"float32\", \"nested_offset\": 0.10000000149011612}");
  expect_same_linear(read_with(encoded.tensors, {}), {.weight = w}, "nested");
}

TEST(Bitsandbytes, Int8ScalesComeBackAsTheyWere) {
  // 1.40625 / 127 is the reference's scale of the row x[0..7].
  Int8Weight w{.out = 1, .in = 8};
  w.codes = {-110, -6, 99, -82, 23, 127, -54, 51};
  w.scales = {1.40625f / 127.0f};
  const ActivationQuant input{.kind = ActivationQuant::Kind::kInt,
                              .outlier_threshold = 6};
  const LinearWeights linear{.weight = w, .input = input};
  const auto encoded = encode_bitsandbytes("p", linear, DType::kF16);
  EXPECT_EQ(values_of<float>(find(encoded.tensors, "p.SCB")),
            (std::vector<float>{1.40625f}));
  EXPECT_EQ(find(encoded.tensors, "p.weight_format").shape, Shape{});
  expect_same_linear(read_with(encoded.tensors, {}, {}, 6), linear, "int8");
}

TEST(Bitsandbytes, RefusesWhatItsLibraryCannotHold) {
  for (const SampleLinear& s : sample_linears()) {
    const bool fits = s.linear.input_hadamard == 0 &&
                      (std::holds_alternative<Table4Weight>(s.linear.weight) ||
                       std::holds_alternative<DenseWeight>(s.linear.weight) ||
                       s.what == "w8a8");
    try {
      const auto encoded = encode_bitsandbytes(s.what, s.linear, DType::kF32);
      EXPECT_TRUE(fits) << s.what;
    } catch (const Error& e) {
      EXPECT_FALSE(fits) << e.what();
      EXPECT_NE(std::string(e.what()).find("compressed-tensors"),
                std::string::npos);
    }
  }
}

TEST(Bitsandbytes, RefusesBrokenStates) {
  const Table4Weight w = sample_table4(Table4Kind::kNf4, 5, 33, false);
  const auto good =
      encode_bitsandbytes("p", {.weight = w}, DType::kF16).tensors;
  const auto with_state = [&](const std::string& text) {
    auto tensors = good;
    tensors.back().bytes.clear();
    for (const char c : text) tensors.back().bytes.push_back(std::byte(c));
    tensors.back().shape = {text.size()};
    return tensors;
  };
  for (const char* state :
       {"", "{", "[]", "{}", "{\"blocksize\": 64}",
        "{\"blocksize\": 0, \"shape\": [5, 33]}",
        "{\"blocksize\": -1, \"shape\": [5, 33]}",
        "{\"blocksize\": 64, \"shape\": [5]}",
        "{\"blocksize\": 64, \"shape\": [5, \"33\"]}",
        "{\"blocksize\": 64, \"shape\": [5, 34]}",
        "{\"blocksize\": 64, \"shape\": [4294967296, 4294967296]}",
        "{\"blocksize\": 32, \"shape\": [5, 33]}",
        "{\"blocksize\": 64, \"shape\": [5, 33], \"nested_offset\": \"x\"}"}) {
    EXPECT_THROW(read_with(with_state(state), {}), Error) << state;
  }
  auto other_map = good;
  for (NamedTensor& t : other_map) {
    if (t.name == "p.weight.quant_map") t.bytes[63] = std::byte{0x40};
  }
  EXPECT_THROW(read_with(other_map, {}), Error);
}

}  // namespace
}  // namespace llmpress
