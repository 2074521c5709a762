// Scales that are powers of two, one octet each (E8M0: 2^(e - 127), 255 is NaN):
// those of the MX formats (OCP Microscaling Formats, v1.0, section 5.4.1).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "formats/containers/tensor_io.h"

namespace llmpress {

// U8 or F8_E8M0 as floats. Throws Error(kCorruptFile) for another type.
std::vector<float> read_exponents(const TensorReader& reader,
                                  const TensorInfo& info);

// nothing if one is no power of two from 2^-127 to 2^127.
std::optional<std::vector<std::uint8_t>> exponents_of(
    std::span<const float> scales);

}  // namespace llmpress
