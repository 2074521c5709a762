// Element types of tensors in files, and one table of facts about them.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace llmpress {

// In the order of the safetensors enumeration, which its writer sorts by
// (safetensors/src/tensor.rs, enum Dtype).
enum class DType {
  kBool,
  kF4,  // E2M1, two an octet
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,  // E4M3FN: no infinity, 0x7f is NaN
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
};

struct DTypeFacts {
  DType dtype;
  std::string_view name;  // as safetensors writes it: "F32", "BF16", "F8_E4M3"
  std::string_view torch_name;  // "float32"; empty where torch has none
  std::size_t bits;
  bool floating;
};

std::span<const DTypeFacts> all_dtypes();
const DTypeFacts& facts(DType dtype);
// By safetensors name; nullopt if unknown.
std::optional<DType> parse_dtype(std::string_view name);
// By torch name, with or without "torch." in front.
std::optional<DType> parse_torch_dtype(std::string_view name);

// Bytes of `count` elements, rounded up to whole octets.
std::size_t bytes_of(DType dtype, std::size_t count);

// Decodes a floating tensor (F64, F32, F16, BF16, F8_E4M3, F8_E5M2) from
// little-endian bytes. bytes.size() must be bytes_of(dtype, out.size()).
// Throws Error(kUnsupported) for other types.
void decode_floats(DType dtype, std::span<const std::byte> bytes,
                   std::span<float> out);

// Encodes with round to nearest even; E4M3 is clamped to +-448 first.
void encode_floats(DType dtype, std::span<const float> values,
                   std::span<std::byte> out);

// The same for what is to be kept. Throws Error(kNumeric) for a finite value
// that `dtype` would make infinite.
void encode_fitting(DType dtype, std::span<const float> values,
                    std::span<std::byte> out);

// Each value rounded to `dtype` and back.
void round_through(DType dtype, std::span<float> values);

}  // namespace llmpress
