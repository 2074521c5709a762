// What a Linear that was merged and then quantized keeps of the adapters'
// change: the figures of adapter_requantize.h, here against the dense base.
#pragma once

#include <optional>
#include <string>

#include "compress/core/matrix.h"

namespace llmpress {

// "adapter: change of 0.031 of the weight; kept 1.05, cosine 0.95, rounding
// 0.31", of W, W + D and what is written, [out, in] each; nothing if D = 0.
std::optional<std::string> describe_survival(ConstMatrixView base,
                                             ConstMatrixView merged,
                                             ConstMatrixView written);

}  // namespace llmpress
