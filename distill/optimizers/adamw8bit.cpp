#include "distill/optimizers/adamw8bit.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/optimizers/adamw_scalars.h"
#include "distill/optimizers/dynamic_map.h"

namespace llmpress {
namespace {

constexpr std::size_t kBlocksPerTask = 64;
constexpr std::uint8_t kLeastPositive = 1;  // code of the unsigned map

void decode(const DynamicMap& map, std::span<const std::uint8_t> codes,
            float absmax, float* to) {
  for (std::size_t i = 0; i < codes.size(); ++i) {
    to[i] = map.value(codes[i]) * absmax;
  }
}

// Returns the largest magnitude.
float encode(const DynamicMap& map, const float* from, std::uint8_t least,
             std::span<std::uint8_t> codes) {
  float absmax = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    absmax = std::max(absmax, std::abs(from[i]));
  }
  for (std::size_t i = 0; i < codes.size(); ++i) {
    codes[i] = map.code(absmax > 0 ? from[i] / absmax : 0.0f);
    if (from[i] > 0) codes[i] = std::max(codes[i], least);
  }
  return absmax;
}

void update_block(const AdamWScalars& s, std::span<const float> gradient,
                  std::span<float> weight, std::size_t block,
                  AdamW8BitState& state) {
  const std::size_t begin = block * kAdamW8BitBlock;
  const std::size_t n = std::min(kAdamW8BitBlock, weight.size() - begin);
  const auto first = std::span(state.first_codes).subspan(begin, n);
  const auto second = std::span(state.second_codes).subspan(begin, n);
  const DynamicMap &map1 = signed_dynamic_map(), &map2 = unsigned_dynamic_map();
  float m[kAdamW8BitBlock], v[kAdamW8BitBlock];
  decode(map1, first, state.first_absmax[block], m);
  decode(map2, second, state.second_absmax[block], v);
  for (std::size_t i = 0; i < n; ++i) {
    s.update(gradient[begin + i], m[i], v[i], weight[begin + i]);
  }
  state.first_absmax[block] = encode(map1, m, 0, first);
  state.second_absmax[block] = encode(map2, v, kLeastPositive, second);
}

void prepare(AdamW8BitState& state, std::size_t elements) {
  const std::size_t blocks = ceil_div(elements, kAdamW8BitBlock);
  if (state.first_codes.empty() && state.second_codes.empty() &&
      state.first_absmax.empty() && state.second_absmax.empty()) {
    state.first_codes.resize(elements);  // times a largest magnitude of 0
    state.second_codes.resize(elements);
    state.first_absmax.resize(blocks);
    state.second_absmax.resize(blocks);
  }
  if (state.first_codes.size() != elements ||
      state.second_codes.size() != elements ||
      state.first_absmax.size() != blocks ||
      state.second_absmax.size() != blocks) {
    fail(ErrorCode::kInvalidInput,
         "8-bit AdamW: moments of {} and {} elements in {} and {} blocks for a "
         "weight of {}",
         state.first_codes.size(), state.second_codes.size(),
         state.first_absmax.size(), state.second_absmax.size(), elements);
  }
}

}  // namespace

void adamw8bit_step(const AdamWConfig& config, std::size_t step,
                    float learning_rate, float weight_decay,
                    float gradient_factor, std::span<const float> gradient,
                    std::span<float> weight, AdamW8BitState& state,
                    ThreadPool& pool) {
  assert(step > 0 && gradient.size() == weight.size());
  prepare(state, weight.size());
  const AdamWScalars scalars(config, step, learning_rate, weight_decay,
                             gradient_factor);
  pool.for_ranges(state.first_absmax.size(), kBlocksPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t b = begin; b < end; ++b) {
                      update_block(scalars, gradient, weight, b, state);
                    }
                  });
}

}  // namespace llmpress
