#include "quantizers/grid_error.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "compress/core/vector_clones.h"
#include "quantizers/int_code.h"

namespace llmpress {
namespace {

constexpr std::size_t kLanes = 16;
constexpr float kOffGrid = 4096.0f;  // beyond every grid

// x^p for 0 <= x <= 2 to about 1e-6 relative, free of branches, calls and
// divisions; below 2^-126 the result is about 2^-126.
inline float fast_power(float x, float p) {
  // x = 2^e (1 + t), 1 + t in [sqrt(1/2), sqrt(2)); log2(1 + t) / t
  // interpolated at the Chebyshev nodes of that interval.
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t shifted = bits - 0x3f3504f3u;  // sqrt(1/2)
  const auto e = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  const float t =
      std::bit_cast<float>((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  float log = 0.168186591f;
  log = log * t - 0.267963871f;
  log = log * t + 0.296119557f;
  log = log * t - 0.359524455f;
  log = log * t + 0.480613125f;
  log = log * t - 0.721360179f;
  log = log * t + 1.442696523f;
  const float y = clamp_to(p * (e + log * t), -126.0f, 126.0f);
  // 2^y = 2^n e^f, |f| <= ln(2) / 2: Taylor to f^6.
  const float n = round_half_even(y);
  const float f = (y - n) * 0.693147181f;
  float exp = 1.0f / 720;
  exp = exp * f + 1.0f / 120;
  exp = exp * f + 1.0f / 24;
  exp = exp * f + 1.0f / 6;
  exp = exp * f + 0.5f;
  exp = exp * f + 1.0f;
  exp = exp * f + 1.0f;
  const auto power =
      static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127);
  return exp * std::bit_cast<float>(power << 23);
}

// Multiplies by 1 / scale where int_code divides: the codes may differ at a
// tie, whose error is the same either way.
inline float error_term(float w, float inverse_scale, const GridErrorTerms& g) {
  const float steps = clamp_to(w * inverse_scale, -kOffGrid, kOffGrid);
  const float q = clamp_to(round_half_even(steps) + g.zero, 0.0f, g.max_code);
  return std::abs((q - g.zero) * g.scale - w) * g.inverse_range;
}

// Sum of importance * |w' - w|^norm over at most kErrorChunk elements, in lanes
// of fixed order.
constexpr std::size_t kErrorChunk = 4096;

template <bool kSquare, bool kWeighted>
inline __attribute__((always_inline)) double chunk_error(
    const float* w, const float* importance, std::size_t n,
    const GridErrorTerms& g) {
  // An infinite reciprocal (scale below 2^-128) would make NaN of 0.
  const float inverse_scale =
      std::min(1.0f / g.scale, std::numeric_limits<float>::max());
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const float e = error_term(w[i + l], inverse_scale, g);
      const float term = kSquare ? e * e : fast_power(e, g.norm);
      lanes[l] += kWeighted ? term * importance[i + l] : term;
    }
  }
  double sum = 0;
  for (; i < n; ++i) {
    const float e = error_term(w[i], inverse_scale, g);
    const float term = kSquare ? e * e : fast_power(e, g.norm);
    sum += static_cast<double>(kWeighted ? term * importance[i] : term);
  }
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return sum + static_cast<double>(lanes[0]);
}

LLMPRESS_VECTOR_CLONES
double chunk_error_square(const float* w, std::size_t n,
                          const GridErrorTerms& g) {
  return chunk_error<true, false>(w, nullptr, n, g);
}
LLMPRESS_VECTOR_CLONES
double chunk_error_power(const float* w, std::size_t n,
                         const GridErrorTerms& g) {
  return chunk_error<false, false>(w, nullptr, n, g);
}
LLMPRESS_VECTOR_CLONES
double chunk_error_weighted_square(const float* w, const float* importance,
                                   std::size_t n, const GridErrorTerms& g) {
  return chunk_error<true, true>(w, importance, n, g);
}
LLMPRESS_VECTOR_CLONES
double chunk_error_weighted_power(const float* w, const float* importance,
                                  std::size_t n, const GridErrorTerms& g) {
  return chunk_error<false, true>(w, importance, n, g);
}

}  // namespace

double grid_error(std::span<const float> weights,
                  std::span<const float> importance, const GridErrorTerms& g) {
  const bool square = g.norm == 2.0f;
  const std::size_t period =
      importance.empty() ? weights.size() : importance.size();
  double sum = 0;
  for (std::size_t row = 0; row < weights.size(); row += period) {
    for (std::size_t c = 0; c < period; c += kErrorChunk) {
      const std::size_t n = std::min(kErrorChunk, period - c);
      const float* w = weights.data() + row + c;
      if (importance.empty()) {
        sum +=
            square ? chunk_error_square(w, n, g) : chunk_error_power(w, n, g);
      } else {
        const float* weight = importance.data() + c;
        sum += square ? chunk_error_weighted_square(w, weight, n, g)
                      : chunk_error_weighted_power(w, weight, n, g);
      }
    }
  }
  return sum;
}

}  // namespace llmpress
