// AdamW (adamw.h) whose moments take 8 bits an element: the block-wise
// quantization of arXiv:2110.02861, as bitsandbytes has it. Blocks of 256
// elements have the largest magnitude of each moment in float32 and codes of
// the dynamic map (dynamic_map.h), signed for m and unsigned for v. A step
// decodes a block, moves it in float32, updates the weights by the moments not
// yet rounded, and encodes it again: 2.03 bytes of state a weight, not 8.
//
// Differs from bitsandbytes: a v that is not 0 is never stored as 0. There an
// element with a small v beside a large one gets m / epsilon as soon as its
// gradient is 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/optimizers/adamw.h"

namespace llmpress {

inline constexpr std::size_t kAdamW8BitBlock = 256;

// Of one tensor of n elements; empty before the first step.
struct AdamW8BitState {
  std::vector<std::uint8_t> first_codes{}, second_codes{};  // [n]
  std::vector<float> first_absmax{}, second_absmax{};       // [n / 256 up]
};

// As adamw_step().
void adamw8bit_step(const AdamWConfig& config, std::size_t step,
                    float learning_rate, float weight_decay,
                    float gradient_factor, std::span<const float> gradient,
                    std::span<float> weight, AdamW8BitState& state,
                    ThreadPool& pool);

}  // namespace llmpress
