#include "quantizers/signed_rounding.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/vector_clones.h"
#include "quantizers/int_code.h"
#include "quantizers/int_grid.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerChunk = 16, kLanes = 16;
// A range that shrinks no further keeps a normal f16 scale one that is exact to
// six bits and more (scales_fit()).
constexpr float kMaxOffset = 1;
constexpr float kSmallestShare = 1.0f / 16;

// What the loops over a group read.
struct Steps {
  float scale, zero, max_code;
};

// round(w / s + v) + z before it is clamped; beyond every grid where it is far.
inline float free_code(float w, float v, const Steps& at) {
  constexpr float kOffGrid = 4096.0f;
  const float steps = clamp_to(w / at.scale + v, -kOffGrid, kOffGrid);
  return round_half_even(steps) + at.zero;
}

LLMPRESS_VECTOR_CLONES
void round_span(const float* w, const float* v, std::size_t n, const Steps at,
                float* to) {
  for (std::size_t i = 0; i < n; ++i) {
    const float q = clamp_to(free_code(w[i], v[i], at), 0.0f, at.max_code);
    to[i] = at.scale * (q - at.zero);
  }
}

LLMPRESS_VECTOR_CLONES
void encode_span(const float* w, const float* v, std::size_t n, const Steps at,
                 std::uint8_t* codes) {
  for (std::size_t i = 0; i < n; ++i) {
    const float q = clamp_to(free_code(w[i], v[i], at), 0.0f, at.max_code);
    codes[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(q));
  }
}

// The least offset that rounds `steps` to code q, and stays with it when ranges
// move a little.
float offset_to(float steps, float q, float zero, float max_code) {
  constexpr float kWithin = 0.4f;
  float wanted = steps;
  if (q > 0) wanted = std::max(wanted, q - zero - kWithin);
  if (q < max_code) wanted = std::min(wanted, q - zero + kWithin);
  return clamp_to(wanted - steps, -kMaxOffset, kMaxOffset);
}

struct Sums {
  float scale = 0, clamped = 0;  // dL/ds, sum of D (1 - m)
};

// One element: D becomes dL/dv. `end`: alpha lo / s where the zero follows it.
inline void differentiate_one(float w, float v, const Steps& at, float end,
                              float& d, float& scale, float& clamped) {
  const float c = free_code(w, v, at);
  const float q = clamp_to(c, 0.0f, at.max_code);
  // Strictly: a code at an end moves with the range (as autograd has clamp).
  const bool inside = c > 0 && c < at.max_code;
  const float out = inside ? 0.0f : d;
  scale += d * (q - at.zero - (inside ? w / at.scale : end));
  clamped += out;
  d = inside ? d * at.scale : 0.0f;
}

// Sums in lanes of fixed number, so that every instruction set gives the same
// bits.
LLMPRESS_VECTOR_CLONES
Sums differentiate_span(const float* w, const float* v, std::size_t n,
                        const Steps at, float end, float* d) {
  std::array<float, kLanes> scale{}, clamped{};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      differentiate_one(w[i + l], v[i + l], at, end, d[i + l], scale[l],
                        clamped[l]);
    }
  }
  for (; i < n; ++i) {
    differentiate_one(w[i], v[i], at, end, d[i], scale[0], clamped[0]);
  }
  Sums sums;
  for (std::size_t l = 0; l < kLanes; ++l) {
    sums.scale += scale[l];
    sums.clamped += clamped[l];
  }
  return sums;
}

inline float signed_step(float value, float gradient, float rate) {
  const float up = gradient < 0 ? rate : 0.0f;
  const float down = gradient > 0 ? rate : 0.0f;
  return value + up - down;
}

LLMPRESS_VECTOR_CLONES
void step_span(float* value, const float* gradient, std::size_t n, float rate,
               float lo, float hi) {
  for (std::size_t i = 0; i < n; ++i) {
    value[i] = clamp_to(signed_step(value[i], gradient[i], rate), lo, hi);
  }
}

}  // namespace

RoundingRates rates_at(const SignedRoundingConfig& config,
                       std::size_t iteration) {
  const auto steps = static_cast<double>(config.iterations);
  const double first =
      config.learning_rate > 0 ? config.learning_rate : 1 / steps;
  const auto rate =
      static_cast<float>(first * (1 - static_cast<double>(iteration) / steps));
  return {.offset = rate, .range = config.learn_clipping ? rate : 0};
}

SignedRounding::SignedRounding(ConstMatrixView W, const WeightScheme& scheme,
                               ThreadPool& pool)
    : W_(W), scheme_(scheme) {
  check_int_scheme(scheme);
  check_weights(W, "signed rounding");
  group_size_ = resolved_group_size(scheme, W.cols());
  groups_ = ceil_div(W.cols(), group_size_);
  learned_ = {.offset = MatrixF(W.rows(), W.cols()),
              .low = MatrixF(W.rows(), groups_),
              .high = MatrixF(W.rows(), groups_)};
  lo_ = hi_ = MatrixF(W.rows(), groups_);
  start_ranges(pool);
  if (!starts_within_f16()) scheme_.scale_dtype = DType::kF32;
}

std::span<const float> SignedRounding::group(std::size_t o,
                                             std::size_t g) const {
  const std::size_t first = g * group_size_;
  return W_.row(o).subspan(first, std::min(group_size_, W_.cols() - first));
}

// alpha = beta = 1, or the share of the range that a search keeps.
void SignedRounding::start_ranges(ThreadPool& pool) {
  WeightScheme whole = scheme_;
  whole.scale_dtype = DType::kF32;
  WeightScheme searched = whole;
  whole.range = RangeSearch::kMinMax;
  pool.for_ranges(W_.rows(), kRowsPerChunk,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t o = begin; o < end; ++o) {
                      for (std::size_t g = 0; g < groups_; ++g) {
                        const auto w = group(o, g);
                        const auto [lo, hi] = std::ranges::minmax(w);
                        lo_(o, g) = std::min(lo, 0.0f);
                        hi_(o, g) = std::max(hi, 0.0f);
                        if (lo_(o, g) == 0 && hi_(o, g) == 0) {
                          lo_(o, g) = -1;
                          hi_(o, g) = 1;
                        }
                        float share = 1;
                        if (scheme_.range == RangeSearch::kMse) {
                          share = clamp_to(fit_int_grid(w, searched).scale /
                                               fit_int_grid(w, whole).scale,
                                           kSmallestShare, 1);
                        }
                        learned_.low(o, g) = learned_.high(o, g) = share;
                      }
                    }
                  });
}

void SignedRounding::start_from(const GroupedIntWeight& weight,
                                ThreadPool& pool) {
  assert(weight.out == W_.rows() && weight.in == W_.cols() &&
         weight.group_size == group_size_ && weight.g_idx.empty());
  const float max_code = max_int_code(scheme_.bits);
  const auto half = static_cast<float>(1 << (scheme_.bits - 1));
  const Matrix<std::uint8_t> codes = unpack_rows(weight);
  scheme_.scale_dtype = weight.scale_dtype;
  pool.for_ranges(
      W_.rows(), kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          for (std::size_t g = 0; g < groups_; ++g) {
            const std::size_t at = o * groups_ + g, first = g * group_size_;
            const float s = weight.scales[at];
            const float z =
                scheme_.symmetric ? half : static_cast<float>(weight.zeros[at]);
            lo_(o, g) = -z * s;
            hi_(o, g) = scheme_.symmetric ? 0 : (max_code - z) * s;
            learned_.low(o, g) = learned_.high(o, g) = 1;
            const auto w = group(o, g);
            for (std::size_t i = 0; i < w.size(); ++i) {
              learned_.offset(o, first + i) =
                  offset_to(w[i] / s, static_cast<float>(codes(o, first + i)),
                            z, max_code);
            }
          }
        }
      });
}

// With room for the ranges to shrink and scales as f16 holds them in full.
bool SignedRounding::starts_within_f16() const {
  constexpr float kLargest = 65504.0f, kSmallest = 0x1p-14f;
  if (scheme_.scale_dtype != DType::kF16) return true;
  for (std::size_t o = 0; o < W_.rows(); ++o) {
    for (std::size_t g = 0; g < groups_; ++g) {
      const float scale = std::abs(grid(o, g).scale);
      if (!(scale >= kSmallest && scale < kLargest)) return false;
    }
  }
  return true;
}

SignedRounding::Grid SignedRounding::grid(std::size_t o, std::size_t g) const {
  const float lo = learned_.low(o, g) * lo_(o, g);
  const float hi = learned_.high(o, g) * hi_(o, g);
  const float max_code = max_int_code(scheme_.bits);
  if (!scheme_.symmetric) {
    const float scale = stored_scale((hi - lo) / max_code, scheme_.scale_dtype);
    return {scale, clamp_to(round_half_even(clamp_to(-lo / scale, 0, max_code)),
                            0, max_code)};
  }
  const auto half = static_cast<float>(1 << (scheme_.bits - 1));
  const bool at_high = hi > -lo;
  const float scale =
      stored_scale((at_high ? hi : -lo) / half, scheme_.scale_dtype);
  return {at_high ? -scale : scale, half, at_high};
}

void SignedRounding::round_into(MatrixView<float> W_q, ThreadPool& pool) const {
  assert(W_q.rows() == W_.rows() && W_q.cols() == W_.cols());
  const float max_code = max_int_code(scheme_.bits);
  pool.for_ranges(
      W_.rows(), kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          for (std::size_t g = 0; g < groups_; ++g) {
            const auto w = group(o, g);
            const Grid at = grid(o, g);
            const std::size_t first = g * group_size_;
            round_span(w.data(), learned_.offset.row(o).data() + first,
                       w.size(), {at.scale, at.zero, max_code},
                       W_q.row(o).data() + first);
          }
        }
      });
}

SignedRounding::GroupGradient SignedRounding::differentiate(
    std::size_t o, std::size_t g, std::span<float> D) const {
  const auto w = group(o, g);
  const Grid at = grid(o, g);
  const float max_code = max_int_code(scheme_.bits);
  const float lo = learned_.low(o, g) * lo_(o, g);
  const Sums sums = differentiate_span(
      w.data(), learned_.offset.row(o).data() + g * group_size_, w.size(),
      {at.scale, at.zero, max_code}, scheme_.symmetric ? 0 : lo / at.scale,
      D.data());
  if (scheme_.symmetric) {
    const float d = -sums.scale / at.zero;  // d s / d(the end) = -1 / M
    return at.at_high ? GroupGradient{.high = d * hi_(o, g)}
                      : GroupGradient{.low = d * lo_(o, g)};
  }
  const float d = sums.scale / max_code;
  return {.low = (sums.clamped - d) * lo_(o, g), .high = d * hi_(o, g)};
}

RoundingParameters SignedRounding::gradient(ConstMatrixView D) const {
  RoundingParameters to{.offset = MatrixF(D),
                        .low = MatrixF(W_.rows(), groups_),
                        .high = MatrixF(W_.rows(), groups_)};
  for (std::size_t o = 0; o < W_.rows(); ++o) {
    for (std::size_t g = 0; g < groups_; ++g) {
      const GroupGradient d = differentiate(
          o, g, to.offset.row(o).subspan(g * group_size_, group(o, g).size()));
      to.low(o, g) = d.low;
      to.high(o, g) = d.high;
    }
  }
  return to;
}

void SignedRounding::step(MatrixView<float> D, const RoundingRates& rates,
                          ThreadPool& pool) {
  assert(D.rows() == W_.rows() && D.cols() == W_.cols());
  pool.for_ranges(
      W_.rows(), kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          for (std::size_t g = 0; g < groups_; ++g) {
            const auto d =
                D.row(o).subspan(g * group_size_, group(o, g).size());
            const GroupGradient range = differentiate(o, g, d);
            step_span(learned_.offset.row(o).data() + g * group_size_, d.data(),
                      d.size(), rates.offset, -kMaxOffset, kMaxOffset);
            step_span(&learned_.low(o, g), &range.low, 1, rates.range,
                      kSmallestShare, 1);
            step_span(&learned_.high(o, g), &range.high, 1, rates.range,
                      kSmallestShare, 1);
          }
        }
      });
}

GroupedIntWeight SignedRounding::pack(ThreadPool& pool) const {
  IntGrids grids{.group_size = group_size_,
                 .scales = MatrixF(W_.rows(), groups_),
                 .zeros = Matrix<std::uint8_t>(W_.rows(), groups_)};
  Matrix<std::uint8_t> codes(W_.rows(), W_.cols());
  const float max_code = max_int_code(scheme_.bits);
  pool.for_ranges(
      W_.rows(), kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          for (std::size_t g = 0; g < groups_; ++g) {
            const Grid at = grid(o, g);
            const auto w = group(o, g);
            grids.scales(o, g) = at.scale;
            grids.zeros(o, g) = static_cast<std::uint8_t>(at.zero);
            const std::size_t first = g * group_size_;
            encode_span(w.data(), learned_.offset.row(o).data() + first,
                        w.size(), {at.scale, at.zero, max_code},
                        codes.row(o).data() + first);
          }
        }
      });
  return pack_grouped_int(codes.view(), grids, scheme_);
}

}  // namespace llmpress
