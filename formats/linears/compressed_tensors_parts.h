// What the packed types of compressed-tensors share in reading and writing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/containers/typed_tensors.h"
#include "formats/linears/compressed_tensors.h"
#include "formats/linears/packed_words.h"

namespace llmpress {

// Throws Error(code) that names the Linear.
[[noreturn]] void refuse(const StoredLinear& l, ErrorCode code,
                         const std::string& what);

// What quantization_config says of the weight; throws Error(kInvalidInput)
// unless it is of that kind.
const QuantArgs& require_args(const StoredLinear& l, bool floating);
// Throws Error(kUnsupported) unless 2..8.
void require_int_bits(const StoredLinear& l, int bits);
std::size_t group_size_of(const QuantArgs& args, std::size_t in);

// Signed codes of `bits` as ours, q + 2^(bits-1).
std::vector<std::uint8_t> unsigned_codes(const StoredLinear& l,
                                         const TensorInfo& info, int bits);

// Values of [out, groups], [out] or one for all, as [out, groups].
template <class T>
std::vector<T> spread(const TensorInfo& info, std::vector<T> values,
                      std::size_t out, std::size_t groups) {
  if (values.size() == 1) return std::vector<T>(out * groups, values[0]);
  if (groups != 1 || info.shape != std::vector<std::size_t>{out}) {
    require_shape(info, std::vector<std::size_t>{out, groups});
  }
  return values;
}

// Fewer than 8 bits in whole octets, or groups of them: "naive-quantized".
PackedWeight read_naive_groups(const StoredLinear& l, const TensorInfo& info);

// p.weight_shape and the like.
NamedTensor shape_tensor(const std::string& name, std::size_t out,
                         std::size_t in);
// Throws Error(kUnsupported) naming the Linear for a zero point beyond I8.
NamedTensor zero_tensor(const std::string& name,
                        const std::vector<std::size_t>& shape,
                        const std::vector<std::int32_t>& zeros,
                        const std::string& linear);

}  // namespace llmpress
