// Where a value that is not finite first arises.
#pragma once

#include <span>
#include <string>

#include "compress/model/decoder.h"

namespace llmpress {

// Runs `tokens` as one sequence again and names the first place whose output is
// not finite: "model.layers.3: its output is not finite at token 17".
std::string find_non_finite(const Decoder& decoder,
                            std::span<const TokenId> tokens, ThreadPool& pool);

// Throws Error(kNumeric, "<where>: ...") with that place if one of `logits`,
// which follow `tokens`, is NaN or infinite.
void require_finite_logits(const Decoder& decoder,
                           std::span<const float> logits,
                           std::span<const TokenId> tokens,
                           const std::string& where, ThreadPool& pool);

}  // namespace llmpress
