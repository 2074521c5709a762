#include "compress/pipeline/evaluation/tensor_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "compress/core/bit_packing.h"
#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"

namespace llmpress {
namespace {

using Use = std::function<void(std::span<const float>)>;

constexpr std::size_t kChunk = std::size_t{1} << 20;  // numbers at a time

// Each chunk of a packed weight's numbers, in order.
void for_each_chunk(const PackedWeight& weight, const Use& use) {
  const std::size_t rows = rows_of(weight), cols = cols_of(weight);
  const std::size_t step =
      std::max<std::size_t>(kChunk / std::max<std::size_t>(cols, 1), 1);
  for (std::size_t row = 0; row < rows; row += step) {
    MatrixF part(std::min(step, rows - row), cols);
    dequantize_rows(weight, row, part.view());
    use(part.data());
  }
}

template <class T>
void widen(std::span<const std::byte> bytes, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = static_cast<float>(value);
  }
}

// Floats, or integers of any width.
void decode_numbers(const TensorInfo& info, std::span<const std::byte> bytes,
                    std::span<float> out) {
  switch (info.dtype) {
    case DType::kBool:
    case DType::kU8:
    case DType::kF8E8M0:
      return widen<std::uint8_t>(bytes, out);
    case DType::kI8:
      return widen<std::int8_t>(bytes, out);
    case DType::kI16:
      return widen<std::int16_t>(bytes, out);
    case DType::kU16:
      return widen<std::uint16_t>(bytes, out);
    case DType::kI32:
      return widen<std::int32_t>(bytes, out);
    case DType::kU32:
      return widen<std::uint32_t>(bytes, out);
    case DType::kI64:
      return widen<std::int64_t>(bytes, out);
    case DType::kU64:
      return widen<std::uint64_t>(bytes, out);
    case DType::kF4:
      fail(
          ErrorCode::kInvalidArgument,
          "tensor '{}': two codes an octet; give the Linear that it is part of",
          info.name);
    default:
      return decode_floats(info.dtype, bytes, out);
  }
}

void for_each_chunk(const Checkpoint& checkpoint, const TensorInfo& info,
                    std::size_t count, const Use& use) {
  const TensorBytes data = checkpoint.tensors().read(info);
  const std::size_t width = facts(info.dtype).bits / 8;
  std::vector<float> part(std::min(count, kChunk));
  for (std::size_t at = 0; at < count; at += kChunk) {
    const std::size_t size = std::min(kChunk, count - at);
    decode_numbers(info, data.bytes.subspan(at * width, size * width),
                   std::span(part).first(size));
    use(std::span(part).first(size));
  }
}

void count_values(std::span<const float> values, TensorValues& result,
                  double& sum, double& squares) {
  for (const float v : values) {
    ++result.count;
    if (!std::isfinite(v)) {
      ++result.non_finite;
      continue;
    }
    result.zeros += v == 0 ? 1 : 0;
    result.lowest = std::min(result.lowest, static_cast<double>(v));
    result.highest = std::max(result.highest, static_cast<double>(v));
    sum += v;
    squares += static_cast<double>(v) * v;
  }
}

void measure(TensorValues& result,
             const std::function<void(const Use&)>& pass) {
  result.lowest = std::numeric_limits<double>::infinity();
  result.highest = -result.lowest;
  double sum = 0, squares = 0;
  pass(
      [&](std::span<const float> v) { count_values(v, result, sum, squares); });
  const auto finite = static_cast<double>(result.count - result.non_finite);
  if (finite == 0) {
    result.lowest = result.highest = 0;
    return;
  }
  result.mean = sum / finite;
  result.deviation =
      std::sqrt(std::max(0.0, squares / finite - result.mean * result.mean));
  const double width = result.highest - result.lowest;
  if (width <= 0) return;
  result.histogram.resize(kHistogramBins);
  pass([&](std::span<const float> values) {
    for (const float v : values) {
      if (!std::isfinite(v)) continue;
      const auto bin = static_cast<std::size_t>(
          (v - result.lowest) / width * static_cast<double>(kHistogramBins));
      ++result.histogram[std::min(bin, kHistogramBins - 1)];
    }
  });
}

std::vector<std::size_t> code_counts(const PackedWeight& weight) {
  const auto* const ints = std::get_if<GroupedIntWeight>(&weight);
  if (ints == nullptr) return {};
  std::vector<std::size_t> counts(std::size_t{1} << ints->bits);
  std::vector<std::uint8_t> row(ints->in);
  for (std::size_t o = 0; o < ints->out; ++o) {
    unpack_codes(std::span(ints->codes)
                     .subspan(o * ints->words_per_row(), ints->words_per_row()),
                 ints->bits, row);
    for (const std::uint8_t code : row) ++counts[code];
  }
  return counts;
}

std::optional<PackedWeight> find_linear(const Checkpoint& checkpoint,
                                        const Architecture& arch,
                                        const std::string& name) {
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      if (arch.linear_name(layer, l) != name) continue;
      return read_block_linear(checkpoint, arch, layer, l).weight;
    }
  }
  if (name == arch.embedding || name == arch.head) {
    return checkpoint.read_linear(name).weight;
  }
  return std::nullopt;
}

}  // namespace

TensorValues measure_values(const Checkpoint& checkpoint,
                            const Architecture& arch, const std::string& name) {
  TensorValues result{.name = name};
  if (const TensorInfo* const info = checkpoint.tensors().find(name)) {
    result.type = facts(info->dtype).name;
    result.shape = info->shape;
    std::size_t count = 1;
    for (const std::size_t d : info->shape) count *= d;
    measure(result, [&](const Use& use) {
      for_each_chunk(checkpoint, *info, count, use);
    });
    return result;
  }
  const auto weight = find_linear(checkpoint, arch, name);
  if (!weight) {
    fail(ErrorCode::kInvalidArgument,
         "{}: has no tensor and no Linear '{}'; llmpress inspect lists them",
         checkpoint.path(), name);
  }
  result.type = describe(*weight);
  result.shape = {rows_of(*weight), cols_of(*weight)};
  measure(result, [&](const Use& use) { for_each_chunk(*weight, use); });
  result.codes = code_counts(*weight);
  return result;
}

std::string to_json(const TensorValues& v) {
  return nlohmann::ordered_json({{"name", v.name},
                                 {"type", v.type},
                                 {"shape", v.shape},
                                 {"count", v.count},
                                 {"zeros", v.zeros},
                                 {"non_finite", v.non_finite},
                                 {"lowest", v.lowest},
                                 {"highest", v.highest},
                                 {"mean", v.mean},
                                 {"deviation", v.deviation},
                                 {"histogram", v.histogram},
                                 {"codes", v.codes}})
      .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace llmpress
