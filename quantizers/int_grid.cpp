#include "quantizers/int_grid.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "quantizers/vector_clones.h"

namespace llmpress {
namespace {

constexpr float kMaxMagnitude = 1e38f;
constexpr float kMaxF16 = 65504.0f;
constexpr float kMinNormalF16 = 0x1p-14f;
constexpr float kSubnormalStepF16 = 0x1p-24f;
constexpr std::size_t kLanes = 16;
constexpr std::size_t kRowsPerChunk = 16;
// |w / s| beyond this is off every grid; below 2^22 adding 1.5 * 2^23 rounds.
constexpr float kOffGrid = 4096.0f;

// Half to even for |x| < 2^22, as instructions that every target vectorizes.
inline float round_half_even(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23
  return (x + kMagic) - kMagic;
}

inline float clamp_to(float x, float lo, float hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

inline float code_of(float w, float scale, float zero, float max_code) {
  const float steps = clamp_to(w / scale, -kOffGrid, kOffGrid);
  return clamp_to(round_half_even(steps) + zero, 0.0f, max_code);
}

float max_code_of(int bits) { return static_cast<float>((1 << bits) - 1); }

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

struct ErrorTerms {
  float scale, zero, max_code;
  float
      inverse_range;  // makes errors relative, so that powers do not underflow
  float norm;
};

inline float error_term(float w, const ErrorTerms& g) {
  const float q = code_of(w, g.scale, g.zero, g.max_code);
  return std::abs((q - g.zero) * g.scale - w) * g.inverse_range;
}

// Sum of importance * |w' - w|^norm over at most kErrorChunk elements, in lanes
// of fixed order.
constexpr std::size_t kErrorChunk = 4096;

template <bool kSquare, bool kWeighted>
inline __attribute__((always_inline)) double chunk_error(
    const float* w, const float* importance, std::size_t n,
    const ErrorTerms& g) {
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
double chunk_error_square(const float* w, std::size_t n, const ErrorTerms& g) {
  return chunk_error<true, false>(w, nullptr, n, g);
}
LLMPRESS_VECTOR_CLONES
double chunk_error_power(const float* w, std::size_t n, const ErrorTerms& g) {
  return chunk_error<false, false>(w, nullptr, n, g);
}
LLMPRESS_VECTOR_CLONES
double chunk_error_weighted_square(const float* w, const float* importance,
                                   std::size_t n, const ErrorTerms& g) {
  return chunk_error<true, true>(w, importance, n, g);
}
LLMPRESS_VECTOR_CLONES
double chunk_error_weighted_power(const float* w, const float* importance,
                                  std::size_t n, const ErrorTerms& g) {
  return chunk_error<false, true>(w, importance, n, g);
}

// `importance` has the period of a row when a grid covers the whole weight.
double grid_error(std::span<const float> weights,
                  std::span<const float> importance, const ErrorTerms& g) {
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

struct Range {
  float lo = 0, hi = 0;  // lo <= 0 <= hi
};

Range range_of(std::span<const float> weights) {
  std::array<float, kLanes> lo{}, hi{};
  std::size_t i = 0;
  for (; i + kLanes <= weights.size(); i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const float w = weights[i + l];
      lo[l] = w < lo[l] ? w : lo[l];
      hi[l] = w > hi[l] ? w : hi[l];
    }
  }
  for (; i < weights.size(); ++i) {
    lo[0] = std::min(lo[0], weights[i]);
    hi[0] = std::max(hi[0], weights[i]);
  }
  return {*std::min_element(lo.begin(), lo.end()),
          *std::max_element(hi.begin(), hi.end())};
}

IntGrid grid_of(const Range& range, const WeightScheme& scheme) {
  const float max_code = max_code_of(scheme.bits);
  const float scale =
      stored_scale((range.hi - range.lo) / max_code, scheme.scale_dtype);
  if (scheme.symmetric) {
    return {scale, static_cast<std::uint8_t>(1 << (scheme.bits - 1))};
  }
  const float zero =
      std::clamp(std::nearbyint(-range.lo / scale), 0.0f, max_code);
  return {scale, static_cast<std::uint8_t>(zero)};
}

LLMPRESS_VECTOR_CLONES
void encode_span(const float* w, std::size_t n, float scale, float zero,
                 float max_code, std::uint8_t* codes) {
  for (std::size_t i = 0; i < n; ++i) {
    codes[i] = static_cast<std::uint8_t>(
        static_cast<std::int32_t>(code_of(w[i], scale, zero, max_code)));
  }
}

}  // namespace

void check_int_scheme(const WeightScheme& scheme) {
  const auto reject = [](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, "weights: " + what);
  };
  if (scheme.bits < 2 || scheme.bits > 8) {
    reject("bits is " + std::to_string(scheme.bits) + ", need 2..8");
  }
  if (scheme.group_size < -1) {
    reject("group_size is " + std::to_string(scheme.group_size) +
           ", need a positive size, -1 (one group a row) or 0 (whole tensor)");
  }
  if (!(scheme.mse_norm > 0) || scheme.mse_norm > 16) {
    reject("mse_norm is " + std::to_string(scheme.mse_norm) +
           ", need more than 0 and at most 16");
  }
  if (scheme.scale_dtype != DType::kF32 && scheme.scale_dtype != DType::kF16 &&
      scheme.scale_dtype != DType::kBF16) {
    reject("scale_dtype must be f32, f16 or bf16");
  }
}

void check_weights(ConstMatrixView W, std::string_view name) {
  if (W.size() == 0) {
    throw Error(ErrorCode::kInvalidInput,
                std::string(name) + ": weight [" + std::to_string(W.rows()) +
                    ", " + std::to_string(W.cols()) + "] is empty");
  }
  const auto bad = std::find_if(W.data().begin(), W.data().end(), [](float w) {
    return !(std::abs(w) <= kMaxMagnitude);
  });  // NaN too
  if (bad == W.data().end()) return;
  const auto at = static_cast<std::size_t>(bad - W.data().begin());
  throw Error(ErrorCode::kInvalidInput,
              std::string(name) + ": weight [" + std::to_string(at / W.cols()) +
                  ", " + std::to_string(at % W.cols()) + "] is " +
                  std::to_string(*bad) + ", need finite values up to 1e38");
}

std::size_t resolved_group_size(const WeightScheme& scheme, std::size_t in) {
  if (scheme.group_size <= 0) return in;
  return std::min(static_cast<std::size_t>(scheme.group_size), in);
}

float stored_scale(float scale, DType dtype) {
  if (dtype == DType::kF16) {
    if (scale >= kMaxF16) return kMaxF16;
    if (scale >= kMinNormalF16) return f16_to_float(f16_from_float(scale));
    // Up, so that a group of tiny weights is not clipped by a coarse scale.
    const float steps = std::ceil(scale / kSubnormalStepF16);
    return std::max(steps, 1.0f) * kSubnormalStepF16;
  }
  const float normal = std::max(scale, std::numeric_limits<float>::min());
  if (dtype == DType::kBF16) return bf16_to_float(bf16_from_float(normal));
  return normal;
}

IntGrid fit_int_grid(std::span<const float> weights, const WeightScheme& scheme,
                     std::span<const float> importance) {
  Range full = range_of(weights);
  if (full.lo == 0 && full.hi == 0) full = {-1, 1};
  const float largest = std::max(-full.lo, full.hi);
  if (scheme.symmetric) full = {-largest, largest};
  IntGrid best = grid_of(full, scheme);
  if (scheme.range == RangeSearch::kMinMax) return best;

  double best_error = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 80; ++i) {
    const float p = 1.0f - static_cast<float>(i) / 100.0f;
    const IntGrid grid = grid_of({p * full.lo, p * full.hi}, scheme);
    const double error =
        grid_error(weights, importance,
                   {.scale = grid.scale,
                    .zero = static_cast<float>(grid.zero),
                    .max_code = max_code_of(scheme.bits),
                    .inverse_range = 1.0f / largest,
                    .norm = static_cast<float>(scheme.mse_norm)});
    if (error < best_error) {
      best_error = error;
      best = grid;
    }
  }
  return best;
}

IntGrids fit_int_grids(ConstMatrixView W, const WeightScheme& scheme,
                       ThreadPool& pool, std::span<const float> importance) {
  check_int_scheme(scheme);
  assert(importance.empty() || importance.size() == W.cols());
  IntGrids grids{.group_size = resolved_group_size(scheme, W.cols())};
  const std::size_t groups = ceil_div(W.cols(), grids.group_size);
  grids.scales = MatrixF(W.rows(), groups);
  grids.zeros = Matrix<std::uint8_t>(W.rows(), groups);
  if (scheme.group_size == 0) {
    const IntGrid grid = fit_int_grid(W.data(), scheme, importance);
    std::ranges::fill(grids.scales.data(), grid.scale);
    std::ranges::fill(grids.zeros.data(), grid.zero);
    return grids;
  }
  pool.for_ranges(
      W.rows(), kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          for (std::size_t g = 0; g < groups; ++g) {
            const std::size_t first = g * grids.group_size;
            const std::size_t n = std::min(grids.group_size, W.cols() - first);
            const IntGrid grid = fit_int_grid(
                W.row(o).subspan(first, n), scheme,
                importance.empty() ? importance : importance.subspan(first, n));
            grids.scales(o, g) = grid.scale;
            grids.zeros(o, g) = grid.zero;
          }
        }
      });
  return grids;
}

void encode_int(std::span<const float> weights, const IntGrid& grid, int bits,
                std::span<std::uint8_t> codes) {
  assert(codes.size() == weights.size());
  encode_span(weights.data(), weights.size(), grid.scale,
              static_cast<float>(grid.zero), max_code_of(bits), codes.data());
}

Matrix<std::uint8_t> encode_int(ConstMatrixView W, const IntGrids& grids,
                                int bits, ThreadPool& pool) {
  Matrix<std::uint8_t> codes(W.rows(), W.cols());
  pool.for_ranges(
      W.rows(), kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          for (std::size_t g = 0; g < grids.scales.cols(); ++g) {
            const std::size_t first = g * grids.group_size;
            const std::size_t n = std::min(grids.group_size, W.cols() - first);
            encode_int(W.row(o).subspan(first, n),
                       {grids.scales(o, g), grids.zeros(o, g)}, bits,
                       codes.row(o).subspan(first, n));
          }
        }
      });
  return codes;
}

GroupedIntWeight pack_grouped_int(MatrixView<const std::uint8_t> codes,
                                  IntGrids grids, const WeightScheme& scheme,
                                  std::vector<std::uint32_t> g_idx) {
  GroupedIntWeight weight{.out = codes.rows(),
                          .in = codes.cols(),
                          .bits = scheme.bits,
                          .group_size = grids.group_size,
                          .symmetric = scheme.symmetric,
                          .scale_dtype = scheme.scale_dtype,
                          .codes = pack_rows(codes, scheme.bits),
                          .g_idx = std::move(g_idx)};
  weight.scales.assign(grids.scales.data().begin(), grids.scales.data().end());
  if (!scheme.symmetric) {
    weight.zeros.assign(grids.zeros.data().begin(), grids.zeros.data().end());
  }
  return weight;
}

Int8Weight to_int8(const GroupedIntWeight& weight) {
  assert(weight.bits == 8 && weight.groups() == 1 && weight.g_idx.empty());
  const Matrix<std::uint8_t> codes = unpack_rows(weight);
  Int8Weight result{.out = weight.out,
                    .in = weight.in,
                    .scale_dtype = weight.scale_dtype,
                    .scales = weight.scales};
  result.codes.reserve(codes.size());
  for (const std::uint8_t code : codes.data()) {
    result.codes.push_back(static_cast<std::int8_t>(code - 128));
  }
  for (const std::uint8_t zero : weight.zeros)
    result.zeros.push_back(zero - 128);
  return result;
}

std::vector<std::string> scale_notes(std::span<const float> scales,
                                     DType scale_dtype) {
  if (scale_dtype != DType::kF16) return {};
  const auto large = std::ranges::count(scales, kMaxF16);
  const auto small =
      std::ranges::count_if(scales, [](float s) { return s < kMinNormalF16; });
  std::vector<std::string> notes;
  if (large > 0) {
    notes.push_back(std::to_string(large) +
                    " scales clamped to 65504, the largest f16");
  }
  if (small > 0) {
    notes.push_back(std::to_string(small) +
                    " scales below 6.1e-5 stored as f16 subnormals");
  }
  return notes;
}

}  // namespace llmpress
