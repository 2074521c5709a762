#include "quantizers/int_grid.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/magnitude.h"
#include "compress/core/vector_clones.h"
#include "quantizers/grid_error.h"
#include "quantizers/int_code.h"

namespace llmpress {
namespace {

constexpr float kMaxMagnitude = 1e38f;
constexpr float kMaxF16 = 65504.0f;
constexpr float kMinNormalF16 = 0x1p-14f;
constexpr float kSubnormalStepF16 = 0x1p-24f;
constexpr std::size_t kRowsPerChunk = 16;

struct Range {
  float lo = 0, hi = 0;  // lo <= 0 <= hi
};

// The bits of a float as a number that is in the order of the floats, and back.
inline std::int32_t in_order(std::int32_t bits) {
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

// Of finite numbers. Whole numbers, because GCC 12 does not vectorize the least
// of floats.
LLMPRESS_VECTOR_CLONES
Range range_of(const float* w, std::size_t n) {
  std::int32_t lo = 0, hi = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t x = in_order(std::bit_cast<std::int32_t>(w[i]));
    lo = std::min(lo, x);
    hi = std::max(hi, x);
  }
  return {std::bit_cast<float>(in_order(lo)),
          std::bit_cast<float>(in_order(hi))};
}

IntGrid grid_of(const Range& range, const WeightScheme& scheme) {
  const float max_code = max_int_code(scheme.bits);
  const float scale =
      stored_scale((range.hi - range.lo) / max_code, scheme.scale_dtype);
  if (scheme.symmetric) {
    return {scale, static_cast<std::uint8_t>(1 << (scheme.bits - 1))};
  }
  const float zero =
      std::clamp(std::nearbyint(-range.lo / scale), 0.0f, max_code);
  return {scale, static_cast<std::uint8_t>(zero)};
}

// The ranges p [lo, hi], p = 1, 0.99 .. 0.21, of which the first one of least
// error is chosen.
class RangeCandidates {
 public:
  RangeCandidates(std::span<const float> weights,
                  std::span<const float> importance, const WeightScheme& scheme,
                  const Range& full)
      : weights_(weights),
        importance_(importance),
        scheme_(scheme),
        inverse_range_(1.0f / std::max(-full.lo, full.hi)) {
    for (std::size_t i = 0; i < kCount; ++i) {
      const float p = 1.0f - static_cast<float>(i) / 100.0f;
      grids_[i] = grid_of({p * full.lo, p * full.hi}, scheme);
    }
  }

  IntGrid best() const {
    if (scheme_.mse_norm > 2) return grids_[least_of_bounded()];
    std::size_t best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < kCount; ++i) {
      const double error = error_of(i, norm());
      if (error < least) {
        least = error;
        best = i;
      }
    }
    return grids_[best];
  }

 private:
  static constexpr std::size_t kCount = 80;
  // For what sums in float32 lose.
  static constexpr double kSlack = 1.001;

  float norm() const { return static_cast<float>(scheme_.mse_norm); }

  double error_of(std::size_t i, float norm) const {
    return grid_error(weights_, importance_,
                      {.scale = grids_[i].scale,
                       .zero = static_cast<float>(grids_[i].zero),
                       .max_code = max_int_code(scheme_.bits),
                       .inverse_range = inverse_range_,
                       .norm = norm});
  }

  // The same choice with fewer powers. By Jensen's inequality
  //   sum m e^p >= M (sum m e^2 / M)^(p / 2),  M = sum m,  p > 2,
  // so that squares, a fifth of the work, rule most candidates out.
  std::size_t least_of_bounded() const {
    std::array<double, kCount> squares{};
    for (std::size_t i = 0; i < kCount; ++i) squares[i] = error_of(i, 2.0f);
    const auto first = static_cast<std::size_t>(
        std::min_element(squares.begin(), squares.end()) - squares.begin());
    const double mass = total_importance();
    std::size_t best = first;
    double least = error_of(first, norm());
    double limit = most_squares(least, mass);
    for (std::size_t i = 0; i < kCount; ++i) {
      if (i == first || squares[i] > limit) continue;
      const double error = error_of(i, norm());
      if (error < least || (error == least && i < best)) {
        best = i;
        least = error;
        limit = most_squares(least, mass);
      }
    }
    return best;
  }

  double total_importance() const {
    const auto elements = static_cast<double>(weights_.size());
    if (importance_.empty()) return elements;
    const auto rows = elements / static_cast<double>(importance_.size());
    return rows * std::accumulate(importance_.begin(), importance_.end(), 0.0);
  }

  // What the squares of a candidate with this error can come to.
  double most_squares(double error, double mass) const {
    if (!(mass > 0)) return std::numeric_limits<double>::infinity();
    return kSlack * mass * std::pow(error / mass, 2 / scheme_.mse_norm);
  }

  std::span<const float> weights_, importance_;
  const WeightScheme& scheme_;
  float inverse_range_;
  std::array<IntGrid, kCount> grids_{};
};

LLMPRESS_VECTOR_CLONES
void encode_span(const float* w, std::size_t n, float scale, float zero,
                 float max_code, std::uint8_t* codes) {
  for (std::size_t i = 0; i < n; ++i) {
    codes[i] = static_cast<std::uint8_t>(
        static_cast<std::int32_t>(int_code(w[i], scale, zero, max_code)));
  }
}

}  // namespace

void check_int_scheme(const WeightScheme& scheme) {
  const auto reject = [](const std::string& what) {
    fail(ErrorCode::kInvalidArgument, "weights: {}", what);
  };
  if (scheme.bits < 2 || scheme.bits > 8) {
    reject(formatted("bits is {}, need 2..8", scheme.bits));
  }
  if (scheme.group_size < -1) {
    reject(
        formatted("group_size is {}, need a positive size, -1 (one group a "
                  "row) or 0 (whole tensor)",
                  scheme.group_size));
  }
  if (!(scheme.mse_norm > 0) || scheme.mse_norm > 16) {
    reject(formatted("mse_norm is {}, need more than 0 and at most 16",
                     scheme.mse_norm));
  }
  if (scheme.scale_dtype != DType::kF32 && scheme.scale_dtype != DType::kF16 &&
      scheme.scale_dtype != DType::kBF16) {
    reject("scale_dtype must be f32, f16 or bf16");
  }
}

void check_weights(ConstMatrixView W, std::string_view name,
                   std::size_t first_row) {
  if (W.size() == 0) {
    fail(ErrorCode::kInvalidInput, "{}: weight [{}, {}] is empty", name,
         W.rows(), W.cols());
  }
  for (std::size_t o = 0; o < W.rows(); ++o) {
    if (largest_magnitude(W.row(o)) <= kMaxMagnitude) continue;
    const auto bad = std::ranges::find_if(W.row(o), [](float w) {
      return !(std::abs(w) <= kMaxMagnitude);  // NaN too
    });
    fail(ErrorCode::kInvalidInput,
         "{}: weight [{}, {}] is {:g}, need finite values up to 1e38", name,
         first_row + o, bad - W.row(o).begin(), *bad);
  }
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
  Range full = range_of(weights.data(), weights.size());
  if (full.lo == 0 && full.hi == 0) full = {-1, 1};
  const float largest = std::max(-full.lo, full.hi);
  if (scheme.symmetric) full = {-largest, largest};
  if (scheme.range == RangeSearch::kMinMax) return grid_of(full, scheme);
  return RangeCandidates(weights, importance, scheme, full).best();
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
              static_cast<float>(grid.zero), max_int_code(bits), codes.data());
}

namespace {

void encode_row(std::span<const float> weights, const IntGrids& grids,
                std::size_t row, int bits, std::span<std::uint8_t> codes) {
  for (std::size_t g = 0; g < grids.scales.cols(); ++g) {
    const std::size_t first = g * grids.group_size;
    const std::size_t n = std::min(grids.group_size, weights.size() - first);
    encode_int(weights.subspan(first, n),
               {grids.scales(row, g), grids.zeros(row, g)}, bits,
               codes.subspan(first, n));
  }
}

GroupedIntWeight without_codes(std::size_t out, std::size_t in,
                               const IntGrids& grids,
                               const WeightScheme& scheme) {
  const auto scales = grids.scales.data();
  const auto zeros = grids.zeros.data();
  GroupedIntWeight weight{.out = out,
                          .in = in,
                          .bits = scheme.bits,
                          .group_size = grids.group_size,
                          .symmetric = scheme.symmetric,
                          .scale_dtype = scheme.scale_dtype,
                          .scales = {scales.begin(), scales.end()}};
  if (!scheme.symmetric) weight.zeros.assign(zeros.begin(), zeros.end());
  return weight;
}

}  // namespace

Matrix<std::uint8_t> encode_int(ConstMatrixView W, const IntGrids& grids,
                                int bits, ThreadPool& pool) {
  Matrix<std::uint8_t> codes(W.rows(), W.cols());
  pool.for_ranges(W.rows(), kRowsPerChunk,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t o = begin; o < end; ++o) {
                      encode_row(W.row(o), grids, o, bits, codes.row(o));
                    }
                  });
  return codes;
}

GroupedIntWeight round_to_grids(ConstMatrixView W, const IntGrids& grids,
                                const WeightScheme& scheme, ThreadPool& pool) {
  GroupedIntWeight weight = without_codes(W.rows(), W.cols(), grids, scheme);
  const std::size_t words = weight.words_per_row();
  weight.codes.resize(weight.out * words);
  pool.for_ranges(
      W.rows(), kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        std::vector<std::uint8_t> codes(W.cols());
        for (std::size_t o = begin; o < end; ++o) {
          encode_row(W.row(o), grids, o, scheme.bits, codes);
          pack_codes(codes, scheme.bits,
                     std::span(weight.codes).subspan(o * words, words));
        }
      });
  return weight;
}

GroupedIntWeight pack_grouped_int(MatrixView<const std::uint8_t> codes,
                                  const IntGrids& grids,
                                  const WeightScheme& scheme,
                                  std::vector<std::uint32_t> g_idx) {
  GroupedIntWeight weight =
      without_codes(codes.rows(), codes.cols(), grids, scheme);
  weight.codes = pack_rows(codes, scheme.bits);
  weight.g_idx = std::move(g_idx);
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
  const auto large = std::ranges::count_if(
      scales, [](float s) { return std::abs(s) == kMaxF16; });
  const auto small = std::ranges::count_if(
      scales, [](float s) { return std::abs(s) < kMinNormalF16; });
  std::vector<std::string> notes;
  if (large > 0) {
    notes.push_back(
        formatted("{} scales clamped to 65504, the largest f16", large));
  }
  if (small > 0) {
    notes.push_back(
        formatted("{} scales below 6.1e-5 stored as f16 subnormals", small));
  }
  return notes;
}

}  // namespace llmpress
