#include "formats/containers/typed_tensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

bool representable(DType dtype, std::span<const float> values) {
  std::vector<float> rounded(values.begin(), values.end());
  round_through(dtype, rounded);
  return std::equal(values.begin(), values.end(), rounded.begin(),
                    [](float a, float b) {
                      return std::bit_cast<std::uint32_t>(a) ==
                             std::bit_cast<std::uint32_t>(b);
                    });
}

template <class T>
std::vector<std::int64_t> widened(const TensorReader& reader,
                                  const TensorInfo& info) {
  const auto narrow = elements_of<T>(reader, info, info.dtype);
  return {narrow.begin(), narrow.end()};
}

}  // namespace

NamedTensor rounded_tensor(std::string name, DType dtype,
                           std::vector<std::size_t> shape,
                           std::span<const float> values) {
  const auto bad = std::ranges::find_if_not(
      values, [](float v) { return std::isfinite(v); });
  if (bad != values.end()) {
    fail(ErrorCode::kNumeric, "tensor '{}': value {} is {:g}, not finite", name,
         bad - values.begin(), *bad);
  }
  NamedTensor tensor{
      .name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
  tensor.bytes.resize(bytes_of(dtype, values.size()));
  try {
    encode_fitting(dtype, values, tensor.bytes);
  } catch (const Error& e) {
    fail(e.code(), "tensor '{}': {}", tensor.name, e.what());
  }
  return tensor;
}

NamedTensor float_tensor(std::string name, DType dtype,
                         std::vector<std::size_t> shape,
                         std::span<const float> values) {
  if (!representable(dtype, values)) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': a value is not one of {}",
         name, facts(dtype).name);
  }
  NamedTensor tensor{
      .name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
  tensor.bytes.resize(bytes_of(dtype, values.size()));
  encode_floats(dtype, values, tensor.bytes);
  return tensor;
}

NamedTensor lossless_float_tensor(std::string name, DType preferred,
                                  std::vector<std::size_t> shape,
                                  std::span<const float> values) {
  const DType dtype =
      representable(preferred, values) ? preferred : DType::kF32;
  return float_tensor(std::move(name), dtype, std::move(shape), values);
}

bool is_plain_float(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 ||
         dtype == DType::kBF16;
}

std::string subject_of(const TensorInfo& info) {
  return info.file + ": tensor '" + info.name + "'";
}

std::string shape_text(std::span<const std::size_t> shape) {
  std::string text = "[";
  for (const std::size_t d : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(d);
  }
  return text + "]";
}

void require_shape(const TensorInfo& info, std::span<const std::size_t> shape) {
  if (std::equal(info.shape.begin(), info.shape.end(), shape.begin(),
                 shape.end())) {
    return;
  }
  fail(ErrorCode::kCorruptFile, "{}: has shape {}, wanted {}", subject_of(info),
       shape_text(info.shape), shape_text(shape));
}

void require_dtype(const TensorInfo& info, DType dtype) {
  if (info.dtype == dtype) return;
  fail(ErrorCode::kCorruptFile, "{}: is {}, wanted {}", subject_of(info),
       facts(info.dtype).name, facts(dtype).name);
}

std::pair<std::size_t, std::size_t> require_matrix(const TensorInfo& info) {
  if (info.shape.size() != 2) {
    fail(ErrorCode::kCorruptFile, "{}: has shape {}, wanted 2 dimensions",
         subject_of(info), shape_text(info.shape));
  }
  // Products of the two below cannot overflow.
  checked_mul(checked_mul(info.shape[0], info.shape[1], subject_of(info)), 64,
              subject_of(info));
  return {info.shape[0], info.shape[1]};
}

DType scale_dtype_of(const TensorInfo& info) {
  return info.dtype == DType::kF16 || info.dtype == DType::kBF16 ? info.dtype
                                                                 : DType::kF32;
}

std::vector<float> floats_of(const TensorReader& reader,
                             const TensorInfo& info) {
  const TensorBytes stored = reader.read(info);
  std::vector<float> values(checked_elements(info.shape, subject_of(info)));
  if (info.dtype == DType::kF8E8M0) {
    std::transform(stored.bytes.begin(), stored.bytes.end(), values.begin(),
                   [](std::byte b) {
                     return e8m0_to_float(std::to_integer<std::uint8_t>(b));
                   });
    return values;
  }
  const DType d = info.dtype;
  if (!is_plain_float(d)) {
    fail(ErrorCode::kCorruptFile, "{}: is {}, wanted a floating type",
         subject_of(info), facts(d).name);
  }
  decode_floats(d, stored.bytes, values);
  return values;
}

std::vector<std::int64_t> integers_of(const TensorReader& reader,
                                      const TensorInfo& info) {
  if (info.dtype == DType::kI8) return widened<std::int8_t>(reader, info);
  if (info.dtype == DType::kI16) return widened<std::int16_t>(reader, info);
  if (info.dtype == DType::kI32) return widened<std::int32_t>(reader, info);
  return elements_of<std::int64_t>(reader, info, DType::kI64);
}

}  // namespace llmpress
