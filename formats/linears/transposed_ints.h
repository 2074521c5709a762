// What the formats share that store integers transposed, inputs first, with
// scales in F16: GPTQ and AWQ.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/packed_weight.h"
#include "formats/containers/tensor_io.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {

// [rows, cols] -> [cols, rows].
template <class T>
std::vector<T> transposed(std::span<const T> values, std::size_t rows,
                          std::size_t cols) {
  std::vector<T> result(values.size());
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      result[c * rows + r] = values[r * cols + c];
    }
  }
  return result;
}
template <class T>
std::vector<T> transposed(std::span<T> values, std::size_t rows,
                          std::size_t cols) {
  return transposed(std::span<const T>(values), rows, cols);
}

// What a Linear has beside weights that these formats cannot say ("rounded
// inputs"); empty: nothing.
std::string beyond_weights(const LinearWeights& linear);

// Affine integers, an octet or a word each, as groups; absent: another type.
std::optional<GroupedIntWeight> as_groups(const PackedWeight& weight);

// `<name>.weight` of a Linear that stays dense.
NamedTensor dense_tensor(const std::string& name, const DenseWeight& weight);

// Throws Error(kUnsupported) naming the Linear and what to set unless every
// scale is an F16 number.
void require_f16_scales(const std::string& name, const GroupedIntWeight& weight,
                        std::string_view format);

// The scheme that most packed Linears have; null: none is packed.
const LinearScheme* commonest_scheme(
    const std::map<std::string, DescribedLinear>& linears);

}  // namespace llmpress
