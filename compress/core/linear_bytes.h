// A Linear's weights as bytes and back, bit for bit, for another rank of the
// same program: no file format, and not kept beyond a run.
#pragma once

#include <string>
#include <string_view>

#include "compress/core/packed_weight.h"

namespace llmpress {

std::string to_bytes(const LinearWeights& linear);
// Throws Error(kCorruptFile) for bytes that to_bytes() did not make.
LinearWeights linear_from_bytes(std::string_view bytes);

}  // namespace llmpress
