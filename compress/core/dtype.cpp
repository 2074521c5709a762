#include "compress/core/dtype.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "compress/core/float_bits.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are read in place as little-endian");

constexpr std::array<DTypeFacts, 17> kFacts = {{
    {DType::kBool, "BOOL", "bool", 8, false},
    {DType::kF4, "F4", "float4_e2m1fn_x2", 4, true},
    {DType::kU8, "U8", "uint8", 8, false},
    {DType::kI8, "I8", "int8", 8, false},
    {DType::kF8E5M2, "F8_E5M2", "float8_e5m2", 8, true},
    {DType::kF8E4M3, "F8_E4M3", "float8_e4m3fn", 8, true},
    {DType::kF8E8M0, "F8_E8M0", "float8_e8m0fnu", 8, true},
    {DType::kI16, "I16", "int16", 16, false},
    {DType::kU16, "U16", "uint16", 16, false},
    {DType::kF16, "F16", "float16", 16, true},
    {DType::kBF16, "BF16", "bfloat16", 16, true},
    {DType::kI32, "I32", "int32", 32, false},
    {DType::kU32, "U32", "uint32", 32, false},
    {DType::kF32, "F32", "float32", 32, true},
    {DType::kF64, "F64", "float64", 64, true},
    {DType::kI64, "I64", "int64", 64, false},
    {DType::kU64, "U64", "uint64", 64, false},
}};

constexpr bool in_enumeration_order() {
  for (std::size_t i = 0; i < kFacts.size(); ++i) {
    if (static_cast<std::size_t>(kFacts[i].dtype) != i) return false;
  }
  return true;
}
static_assert(in_enumeration_order());

// Bytes from files are not aligned: elements are read and written by memcpy.
template <class Stored, class Decode>
void decode(std::span<const std::byte> bytes, std::span<float> out,
            Decode to_float) {
  const std::byte* from = bytes.data();
  float* to = out.data();
  for (std::size_t i = 0, n = out.size(); i < n; ++i) {
    Stored stored;
    std::memcpy(&stored, from + i * sizeof(Stored), sizeof(Stored));
    to[i] = to_float(stored);
  }
}

template <class Stored, class Encode>
void encode(std::span<const float> values, std::span<std::byte> out,
            Encode from_float) {
  const float* from = values.data();
  std::byte* to = out.data();
  for (std::size_t i = 0, n = values.size(); i < n; ++i) {
    const Stored stored = from_float(from[i]);
    std::memcpy(to + i * sizeof(Stored), &stored, sizeof(Stored));
  }
}

// f16, the commonest type of checkpoints, with the processor's own conversions:
// the same bits, NaN included, several times as fast.
#if defined(__x86_64__)

// Asked of the processor itself: not every compiler's __builtin_cpu_supports
// knows the name. AVX2 is there only if the system saves wide registers.
bool has_f16c() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __builtin_cpu_supports("avx2") &&
           __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  }();
  return has;
}

__attribute__((target("avx,f16c"))) std::size_t decode_f16_eights(
    std::span<const std::byte> bytes, std::span<float> out) {
  std::size_t i = 0;
  for (; i + 8 <= out.size(); i += 8) {
    __m128i halves;
    std::memcpy(&halves, bytes.data() + 2 * i, sizeof halves);
    _mm256_storeu_ps(out.data() + i, _mm256_cvtph_ps(halves));
  }
  return i;
}

__attribute__((target("avx,f16c"))) std::size_t encode_f16_eights(
    std::span<const float> values, std::span<std::byte> out) {
  std::size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    const __m128i halves =
        _mm256_cvtps_ph(_mm256_loadu_ps(values.data() + i),
                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    std::memcpy(out.data() + 2 * i, &halves, sizeof halves);
  }
  return i;
}

#else

bool has_f16c() { return false; }
std::size_t decode_f16_eights(std::span<const std::byte>, std::span<float>) {
  return 0;
}
std::size_t encode_f16_eights(std::span<const float>, std::span<std::byte>) {
  return 0;
}

#endif

void decode_f16(std::span<const std::byte> bytes, std::span<float> out) {
  const std::size_t done = has_f16c() ? decode_f16_eights(bytes, out) : 0;
  decode<std::uint16_t>(
      bytes.subspan(2 * done), out.subspan(done),
      [](std::uint16_t h) { return float_bits::f16_to_float(h); });
}

void encode_f16(std::span<const float> values, std::span<std::byte> out) {
  const std::size_t done = has_f16c() ? encode_f16_eights(values, out) : 0;
  encode<std::uint16_t>(values.subspan(done), out.subspan(2 * done),
                        [](float x) { return float_bits::f16_from_float(x); });
}

[[noreturn]] void throw_not_floating(DType dtype) {
  fail(ErrorCode::kUnsupported,
       "dtype: {} cannot be converted to or from float, wanted F64, F32, F16, "
       "BF16, F8_E4M3 or F8_E5M2",
       facts(dtype).name);
}

}  // namespace

std::span<const DTypeFacts> all_dtypes() { return kFacts; }

const DTypeFacts& facts(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  assert(index < kFacts.size());
  return kFacts[index];
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DTypeFacts& f : kFacts) {
    if (f.name == name) return f.dtype;
  }
  return std::nullopt;
}

std::optional<DType> parse_torch_dtype(std::string_view name) {
  constexpr std::string_view kPrefix = "torch.";
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  if (name.empty()) return std::nullopt;
  for (const DTypeFacts& f : kFacts) {
    if (f.torch_name == name) return f.dtype;
  }
  return std::nullopt;
}

std::size_t bytes_of(DType dtype, std::size_t count) {
  const std::size_t bits = facts(dtype).bits;
  return bits >= 8 ? count * (bits / 8) : count / 2 + count % 2;
}

void decode_floats(DType dtype, std::span<const std::byte> bytes,
                   std::span<float> out) {
  assert(bytes.size() == bytes_of(dtype, out.size()));
  if (out.empty()) return;
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case DType::kF64:
      return decode<double>(bytes, out,
                            [](double x) { return static_cast<float>(x); });
    case DType::kF16:
      return decode_f16(bytes, out);
    case DType::kBF16:
      return decode<std::uint16_t>(bytes, out, [](std::uint16_t h) {
        return float_bits::bf16_to_float(h);
      });
    case DType::kF8E4M3:
      return decode<std::uint8_t>(bytes, out, [](std::uint8_t b) {
        return float_bits::kE4M3Values[b];
      });
    case DType::kF8E5M2:
      return decode<std::uint8_t>(bytes, out, [](std::uint8_t b) {
        return float_bits::kE5M2Values[b];
      });
    case DType::kBool:
    case DType::kF4:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E8M0:
    case DType::kI16:
    case DType::kU16:
    case DType::kI32:
    case DType::kU32:
    case DType::kI64:
    case DType::kU64:
      break;
  }
  throw_not_floating(dtype);
}

void encode_floats(DType dtype, std::span<const float> values,
                   std::span<std::byte> out) {
  assert(out.size() == bytes_of(dtype, values.size()));
  if (values.empty()) return;
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out.data(), values.data(), out.size());
      return;
    case DType::kF64:
      return encode<double>(values, out,
                            [](float x) { return static_cast<double>(x); });
    case DType::kF16:
      return encode_f16(values, out);
    case DType::kBF16:
      return encode<std::uint16_t>(
          values, out, [](float x) { return float_bits::bf16_from_float(x); });
    case DType::kF8E4M3:
      return encode<std::uint8_t>(
          values, out, [](float x) { return float_bits::e4m3_from_float(x); });
    case DType::kF8E5M2:
      return encode<std::uint8_t>(
          values, out, [](float x) { return float_bits::e5m2_from_float(x); });
    case DType::kBool:
    case DType::kF4:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E8M0:
    case DType::kI16:
    case DType::kU16:
    case DType::kI32:
    case DType::kU32:
    case DType::kI64:
    case DType::kU64:
      break;
  }
  throw_not_floating(dtype);
}

void encode_fitting(DType dtype, std::span<const float> values,
                    std::span<std::byte> out) {
  // The least that rounds to the next power of two: half a step above the
  // largest value.
  const float limit = dtype == DType::kF16      ? 65520.0f
                      : dtype == DType::kBF16   ? 0x1.ffp127f
                      : dtype == DType::kF8E5M2 ? 61440.0f
                                                : INFINITY;
  for (const float x : values) {
    if (std::abs(x) < limit || !std::isfinite(x)) continue;
    char value[32];
    std::snprintf(value, sizeof(value), "%.6g", static_cast<double>(x));
    fail(ErrorCode::kNumeric, "the value {} does not fit {}; use {}", value,
         facts(dtype).name, dtype == DType::kBF16 ? "f32" : "bf16 or f32");
  }
  encode_floats(dtype, values, out);
}

void round_through(DType dtype, std::span<float> values) {
  if (dtype == DType::kF32 || dtype == DType::kF64) return;
  constexpr std::size_t kChunk = 4096;
  std::array<std::byte, kChunk * 2> stored{};  // no narrowing type is wider
  if (!facts(dtype).floating || facts(dtype).bits < 8)
    throw_not_floating(dtype);
  for (std::size_t begin = 0; begin < values.size(); begin += kChunk) {
    const auto chunk =
        values.subspan(begin, std::min(kChunk, values.size() - begin));
    const auto bytes = std::span(stored).first(bytes_of(dtype, chunk.size()));
    encode_floats(dtype, chunk, bytes);
    decode_floats(dtype, bytes, chunk);
  }
}

}  // namespace llmpress
