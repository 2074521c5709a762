#include "quantizers/grid_error.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "quantizers/int_code.h"
#include "quantizers/vector_clones.h"

namespace llmpress {
namespace {

constexpr std::size_t kLanes = 16;

// x^p for 0 <= x <= 2 to about 1e-6 relative, free of branches and calls;
// below 2^-126 the result is about 2^-126.
inline float fast_power(float x, float p) {
  // x = 2^e m with m in [sqrt(1/2), sqrt(2)); log2 m = 2/ln2
  // atanh((m-1)/(m+1)).
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t shifted = bits - 0x3f3504f3u;  // sqrt(1/2)
  const auto e = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  const float m = std::bit_cast<float>((shifted & 0x007fffffu) + 0x3f3504f3u);
  const float t = (m - 1.0f) / (m + 1.0f);
  const float t2 = t * t;
  const float series =
      1.0f + t2 * (1.0f / 3 + t2 * (1.0f / 5 + t2 * (1.0f / 7 + t2 / 9)));
  const float y =
      clamp_to(p * (e + 2.885390082f * t * series), -126.0f, 126.0f);
  // 2^y = 2^n e^(f ln2), |f| <= 1/2: Taylor to f^7.
  const float n = round_half_even(y);
  const float f = (y - n) * 0.693147181f;
  const float exp_f =
      1.0f +
      f * (1.0f +
           f * (1.0f / 2 +
                f * (1.0f / 6 +
                     f * (1.0f / 24 + f * (1.0f / 120 + f * (1.0f / 720))))));
  const auto power =
      static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127);
  return exp_f * std::bit_cast<float>(power << 23);
}

inline float error_term(float w, const GridErrorTerms& g) {
  const float q = int_code(w, g.scale, g.zero, g.max_code);
  return std::abs((q - g.zero) * g.scale - w) * g.inverse_range;
}

// Sum of importance * |w' - w|^norm over at most kErrorChunk elements, in lanes
// of fixed order.
constexpr std::size_t kErrorChunk = 4096;

template <bool kSquare, bool kWeighted>
inline __attribute__((always_inline)) double chunk_error(
    const float* w, const float* importance, std::size_t n,
    const GridErrorTerms& g) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const float e = error_term(w[i + l], g);
      const float term = kSquare ? e * e : fast_power(e, g.norm);
      lanes[l] += kWeighted ? term * importance[i + l] : term;
    }
  }
  double sum = 0;
  for (; i < n; ++i) {
    const float e = error_term(w[i], g);
    const float term = kSquare ? e * e : fast_power(e, g.norm);
    sum += static_cast<double>(kWeighted ? term * importance[i] : term);
  }
  for (const float lane : lanes) sum += static_cast<double>(lane);
  return sum;
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
