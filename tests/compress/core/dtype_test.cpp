#include "compress/core/dtype.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "compress/core/error.h"
#include "compress/core/float_formats.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr DType kStorable[] = {DType::kF64,  DType::kF32,    DType::kF16,
                               DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};

TEST(DType, FactsAreFoundByTypeAndByBothNames) {
  for (const DTypeFacts& f : all_dtypes()) {
    EXPECT_EQ(&facts(f.dtype), &f);
    EXPECT_EQ(parse_dtype(f.name), f.dtype);
    EXPECT_EQ(parse_torch_dtype(f.torch_name), f.dtype);
    EXPECT_EQ(parse_torch_dtype("torch." + std::string(f.torch_name)), f.dtype);
  }
}

TEST(DType, UnknownNamesAreNotAType) {
  for (const char* name : {"", "f32", "F80", "F8_E4M3FN", "float32", "BF16 "}) {
    EXPECT_EQ(parse_dtype(name), std::nullopt) << name;
  }
  for (const char* name : {"", "torch.", "F32", "torch.torch.float32"}) {
    EXPECT_EQ(parse_torch_dtype(name), std::nullopt) << name;
  }
}

TEST(DType, BytesAreRoundedUpToWholeOctets) {
  EXPECT_EQ(bytes_of(DType::kF4, 0), 0u);
  EXPECT_EQ(bytes_of(DType::kF4, 5), 3u);
  EXPECT_EQ(bytes_of(DType::kBool, 5), 5u);
  EXPECT_EQ(bytes_of(DType::kBF16, 5), 10u);
  EXPECT_EQ(bytes_of(DType::kF64, 5), 40u);
}

TEST(DType, FloatsThatATypeHoldsSurviveEncodingAndDecoding) {
  const std::vector<float> values = {0, -0.0f, 1, -1.5f, 0.25f, 192, -256};
  for (const DType dtype : kStorable) {
    std::vector<std::byte> bytes(bytes_of(dtype, values.size()));
    encode_floats(dtype, values, bytes);
    std::vector<float> decoded(values.size());
    decode_floats(dtype, bytes, decoded);
    EXPECT_EQ(decoded, values) << facts(dtype).name;
    EXPECT_TRUE(std::signbit(decoded[1])) << facts(dtype).name;
  }
}

TEST(DType, DecodesFromUnalignedLittleEndianBytes) {
  // An octet of padding, then f16 1.0 and -2.0.
  const std::byte bytes[] = {std::byte{9}, std::byte{0}, std::byte{0x3c},
                             std::byte{0}, std::byte{0xc0}};
  std::vector<float> values(2);
  decode_floats(DType::kF16, std::span(bytes).subspan(1), values);
  EXPECT_EQ(values, (std::vector<float>{1, -2}));
}

TEST(DType, EncodingRoundsAsTheScalarConversionsDo) {
  Rng rng(5);
  std::vector<float> values(1001);
  for (float& x : values) x = static_cast<float>(std::exp(8 * rng.normal()));
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<std::byte> bytes(bytes_of(dtype, values.size()));
    encode_floats(dtype, values, bytes);
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::uint16_t found;
      std::memcpy(&found, &bytes[2 * i], 2);
      EXPECT_EQ(found, dtype == DType::kF16 ? f16_from_float(values[i])
                                            : bf16_from_float(values[i]));
    }
  }
  std::vector<std::byte> octets(values.size());
  encode_floats(DType::kF8E4M3, values, octets);
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(std::to_integer<int>(octets[i]), e4m3_from_float(values[i]));
  }
}

// Whole vectors and single elements take different paths: both must give the
// bits of the scalar conversion, for every code and every kind of float.
TEST(DType, ConvertsEveryF16LikeTheScalarConversionBitForBit) {
  std::vector<std::uint16_t> codes(65536);
  for (std::size_t c = 0; c < codes.size(); ++c) {
    codes[c] = static_cast<std::uint16_t>(c);
  }
  std::vector<float> decoded(codes.size());
  decode_floats(DType::kF16, std::as_bytes(std::span(codes)), decoded);
  for (std::size_t c = 0; c < codes.size(); ++c) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(decoded[c]),
              std::bit_cast<std::uint32_t>(f16_to_float(codes[c])));
  }
  Rng rng(7);
  std::vector<float> values(100003);
  for (float& x : values) {
    x = std::bit_cast<float>(static_cast<std::uint32_t>(rng.next()));
  }
  std::vector<std::uint16_t> encoded(values.size());
  encode_floats(DType::kF16, values,
                std::as_writable_bytes(std::span(encoded)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(encoded[i], f16_from_float(values[i])) << values[i];
  }
}

TEST(DType, RoundThroughIsEncodingThenDecoding) {
  Rng rng(6);
  std::vector<float> values(10007);  // more than one chunk
  for (float& x : values) x = static_cast<float>(rng.normal());
  for (const DType dtype : kStorable) {
    std::vector<std::byte> bytes(bytes_of(dtype, values.size()));
    encode_floats(dtype, values, bytes);
    std::vector<float> wanted(values.size()), found = values;
    decode_floats(dtype, bytes, wanted);
    round_through(dtype, found);
    EXPECT_EQ(found, wanted) << facts(dtype).name;
  }
}

// Half a step above the largest value is the first that becomes infinite.
TEST(DType, EncodesWhatFitsAndRefusesWhatWouldBecomeInfinite) {
  const auto fits = [](DType dtype, float value) {
    std::vector<std::byte> bytes(bytes_of(dtype, 1));
    try {
      encode_fitting(dtype, std::span(&value, 1), bytes);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kNumeric);
      return false;
    }
    return true;
  };
  const std::pair<DType, float> firsts[] = {{DType::kF16, 65520.0f},
                                            {DType::kBF16, 0x1.ffp127f},
                                            {DType::kF8E5M2, 61440.0f}};
  for (const auto& [dtype, first] : firsts) {
    EXPECT_FALSE(fits(dtype, first)) << facts(dtype).name;
    EXPECT_FALSE(fits(dtype, -first)) << facts(dtype).name;
    EXPECT_TRUE(fits(dtype, std::nextafter(first, 0.0f))) << facts(dtype).name;
  }
  EXPECT_TRUE(fits(DType::kF32, 3e38f));
  EXPECT_TRUE(fits(DType::kF8E4M3, 1e6f));  // clamped
}

TEST(DType, TypesThatAreNotFloatsCannotBeConverted) {
  std::vector<float> values(2);
  for (const DTypeFacts& f : all_dtypes()) {
    if (std::find(std::begin(kStorable), std::end(kStorable), f.dtype) !=
        std::end(kStorable)) {
      continue;
    }
    std::vector<std::byte> bytes(bytes_of(f.dtype, values.size()));
    EXPECT_THROW(decode_floats(f.dtype, bytes, values), Error) << f.name;
    EXPECT_THROW(encode_floats(f.dtype, values, bytes), Error) << f.name;
    EXPECT_THROW(round_through(f.dtype, values), Error) << f.name;
  }
}

}  // namespace
}  // namespace llmpress
