#include "compress/core/magnitude.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "compress/core/vector_clones.h"

namespace llmpress {
namespace {

// Of the largest magnitude: the bits are in the order of the numbers.
LLMPRESS_VECTOR_CLONES
std::uint32_t largest_bits(const float* x, std::size_t n) {
  std::uint32_t most = 0;
  for (std::size_t i = 0; i < n; ++i) {
    most = std::max(most, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu);
  }
  return most;
}

}  // namespace

float largest_magnitude(std::span<const float> x) {
  return std::bit_cast<float>(largest_bits(x.data(), x.size()));
}

bool all_finite(std::span<const float> x) {
  return std::isfinite(largest_magnitude(x));
}

}  // namespace llmpress
