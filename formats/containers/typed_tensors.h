// Between tensors as octets and vectors of C++ types.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "compress/core/error.h"
#include "formats/containers/tensor_io.h"

namespace llmpress {

template <class T>
NamedTensor tensor_of(std::string name, DType dtype,
                      std::vector<std::size_t> shape,
                      const std::vector<T>& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto bytes = std::as_bytes(std::span(values));
  return {.name = std::move(name),
          .dtype = dtype,
          .shape = std::move(shape),
          .bytes = {bytes.begin(), bytes.end()}};
}

// Each value must be one of `dtype` already.
NamedTensor float_tensor(std::string name, DType dtype,
                         std::vector<std::size_t> shape,
                         std::span<const float> values);

// Values rounded to `dtype` once. Throws Error(kNumeric) naming the tensor if
// one is not finite or does not fit.
NamedTensor rounded_tensor(std::string name, DType dtype,
                           std::vector<std::size_t> shape,
                           std::span<const float> values);

// F32 unless every value is one of `preferred`.
NamedTensor lossless_float_tensor(std::string name, DType preferred,
                                  std::vector<std::size_t> shape,
                                  std::span<const float> values);

// "m.safetensors: tensor 'a.weight'".
// F64, F32, F16 or BF16: an 8-bit float is a code that means nothing without
// its scales.
bool is_plain_float(DType dtype);

std::string subject_of(const TensorInfo& info);
std::string shape_text(std::span<const std::size_t> shape);
// Throws Error(kCorruptFile) naming the tensor and both shapes.
void require_shape(const TensorInfo& info, std::span<const std::size_t> shape);
void require_dtype(const TensorInfo& info, DType dtype);

// [rows, cols] of a tensor of two dimensions whose element count, times any
// width, does not overflow.
std::pair<std::size_t, std::size_t> require_matrix(const TensorInfo& info);

// The type that scales stored like this keep: F16, BF16 or F32.
DType scale_dtype_of(const TensorInfo& info);

// The elements of a tensor of `dtype`, whose elements are as wide as T.
template <class T>
std::vector<T> elements_of(const TensorReader& reader, const TensorInfo& info,
                           DType dtype) {
  static_assert(std::is_trivially_copyable_v<T>);
  require_dtype(info, dtype);
  const TensorBytes stored = reader.read(info);
  std::vector<T> values(stored.bytes.size() / sizeof(T));
  if (!values.empty()) {
    std::memcpy(values.data(), stored.bytes.data(), values.size() * sizeof(T));
  }
  return values;
}

// F64, F32, F16, BF16 or F8_E8M0 as float32, which may be anything.
std::vector<float> floats_of(const TensorReader& reader,
                             const TensorInfo& info);

// I8, I16, I32 or I64 as 64 bits.
std::vector<std::int64_t> integers_of(const TensorReader& reader,
                                      const TensorInfo& info);

}  // namespace llmpress
