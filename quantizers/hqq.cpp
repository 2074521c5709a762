#include "quantizers/hqq.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "quantizers/activation_range.h"
#include "quantizers/int_grid.h"
#include "quantizers/quantize_result.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerChunk = 16;

struct RealGrid {
  float scale = 1, zero = 0;
};

float round_to(float x, DType dtype) {
  if (dtype == DType::kF16) return f16_to_float(f16_from_float(x));
  if (dtype == DType::kBF16) return bf16_to_float(bf16_from_float(x));
  return x;
}

float code_of(float w, const RealGrid& grid, float top) {
  return std::clamp(std::nearbyint(w / grid.scale + grid.zero), 0.0f, top);
}

RealGrid start_grid(std::span<const float> w, float top, DType scale_dtype) {
  auto [lo, hi] = std::ranges::minmax(w);
  const float largest = std::max(std::abs(lo), std::abs(hi));
  if (largest == 0) return {};
  // A narrow range far from 0 would need a zero beyond f16: take 0 into it.
  if (hi - lo < largest / 64) {
    lo = std::min(lo, 0.0f);
    hi = std::max(hi, 0.0f);
  }
  const float scale = stored_scale((hi - lo) / top, scale_dtype);
  return {scale, -lo / scale};
}

// One round at `grid`; returns mean |W - W'| there and moves grid.zero on.
double half_quadratic_step(std::span<const float> w, const HqqConfig& hqq,
                           double beta, float top, RealGrid& grid) {
  double error = 0, zero = 0;
  // Below this size the shrinkage leaves nothing, and needs no power.
  const double threshold = std::pow(beta, -1 / (2 - hqq.p));
  for (const float x : w) {
    const float q = code_of(x, grid, top);
    const auto d = static_cast<double>(x - grid.scale * (q - grid.zero));
    const double size = std::abs(d);
    error += size;
    const double kept =
        size > threshold ? size - std::pow(size, hqq.p - 1) / beta : 0;
    const double target = static_cast<double>(x) - std::copysign(kept, d);
    zero += static_cast<double>(q) - target / static_cast<double>(grid.scale);
  }
  const auto n = static_cast<double>(w.size());
  grid.zero = static_cast<float>(zero / n);
  return error / n;
}

RealGrid fit_group(std::span<const float> w, const WeightScheme& scheme,
                   const HqqConfig& hqq) {
  const auto top = static_cast<float>((1 << scheme.bits) - 1);
  RealGrid grid = start_grid(w, top, scheme.scale_dtype);
  RealGrid best = grid;
  double best_error = std::numeric_limits<double>::infinity();
  double beta = hqq.beta;
  for (std::size_t k = 0; k <= hqq.iterations; ++k) {
    const RealGrid here{grid.scale, round_to(grid.zero, scheme.scale_dtype)};
    grid = here;
    const double error = half_quadratic_step(w, hqq, beta, top, grid);
    if (!(error < best_error)) break;
    best_error = error;
    best = here;
    beta *= 1.01;
  }
  return best;
}

}  // namespace

GroupedIntWeight quantize_hqq_weight(ConstMatrixView W,
                                     const WeightScheme& scheme,
                                     const HqqConfig& hqq, ThreadPool& pool) {
  check_int_scheme(scheme);
  const std::size_t group_size = resolved_group_size(scheme, W.cols());
  const std::size_t groups = ceil_div(W.cols(), group_size);
  const auto top = static_cast<float>((1 << scheme.bits) - 1);
  GroupedIntWeight q{.out = W.rows(),
                     .in = W.cols(),
                     .bits = scheme.bits,
                     .group_size = group_size,
                     .scale_dtype = scheme.scale_dtype,
                     .scales = std::vector<float>(W.rows() * groups),
                     .float_zeros = std::vector<float>(W.rows() * groups)};
  Matrix<std::uint8_t> codes(W.rows(), W.cols());
  RealGrid whole;
  if (scheme.group_size == 0) whole = fit_group(W.data(), scheme, hqq);
  pool.for_ranges(
      W.rows(), kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          for (std::size_t g = 0; g < groups; ++g) {
            const std::size_t first = g * group_size;
            const auto part =
                W.row(o).subspan(first, std::min(group_size, W.cols() - first));
            const RealGrid grid =
                scheme.group_size == 0 ? whole : fit_group(part, scheme, hqq);
            q.scales[o * groups + g] = grid.scale;
            q.float_zeros[o * groups + g] = grid.zero;
            for (std::size_t i = 0; i < part.size(); ++i) {
              codes(o, first + i) =
                  static_cast<std::uint8_t>(code_of(part[i], grid, top));
            }
          }
        }
      });
  q.codes = pack_rows(codes.view(), scheme.bits);
  return q;
}

namespace {

QuantizeResult quantize_hqq(const QuantizeRequest& request) {
  const QuantizeConfig& config = *request.config;
  check_weights(request.W, request.name);
  const auto reject = [&](const std::string& what) {
    fail(ErrorCode::kInvalidArgument, "{}: hqq: {}", request.name, what);
  };
  if (config.weights.type != WeightType::kInt) {
    reject("weights.type must be int");
  }
  if (config.weights.symmetric) reject("weights must not be symmetric");
  if (!(config.hqq.p > 0 && config.hqq.p <= 1) || !(config.hqq.beta > 0)) {
    reject("p must be in (0, 1] and beta positive");
  }
  return finish_result(request, quantize_hqq_weight(request.W, config.weights,
                                                    config.hqq, *request.pool));
}

constexpr auto kHqq = &QuantizeConfig::hqq;
constexpr Setting<QuantizeConfig> kSettings[] = {
    {"p", "norm of the error, below 1 for outliers",
     number_at<kHqq, &HqqConfig::p>(1e-3, 1)},
    {"beta", "weight of the proximal term",
     number_at<kHqq, &HqqConfig::beta>(1e-3, 1e6)},
    {"iterations", "at most", count_at<kHqq, &HqqConfig::iterations>(1, 10000)},
};

std::optional<SettingFault> check_settings(const QuantizeConfig& config) {
  if (!config.weights.symmetric) return std::nullopt;
  return SettingFault{"weights",
                      "must be 'symmetric: false' for method 'hqq', which "
                      "searches for zero points"};
}

bool has_real_zeros(const PackedWeight& weight) {
  const auto* const grouped = std::get_if<GroupedIntWeight>(&weight);
  return grouped != nullptr && !grouped->float_zeros.empty();
}

void mark(const QuantizeConfig&, PackedWeight& weight, ActivationQuant&) {
  auto* const grouped = std::get_if<GroupedIntWeight>(&weight);
  if (grouped == nullptr) return;
  grouped->zeros.clear();
  grouped->float_zeros.assign(grouped->scales.size(), 0.0f);
}

std::optional<PackedWeight> round_like(const PackedWeight& stored,
                                       ConstMatrixView W,
                                       const WeightScheme& scheme,
                                       ThreadPool& pool) {
  if (!has_real_zeros(stored)) return std::nullopt;
  return quantize_hqq_weight(W, scheme, {}, pool);
}

}  // namespace

QuantizerMethod hqq_method() {
  return {
      .name = "hqq",
      .summary =
          "half-quadratic search for zero points; integers with zero points",
      .paper = "mobiusml.github.io/hqq_blog",
      .weights = WeightKinds::kIntegers,
      .needs =
          [](const QuantizeConfig& config) {
            return activation_needs(config.input);
          },
      .quantize = quantize_hqq,
      .settings = kSettings,
      .group_size = 64,  // the authors' default, hqq/core/quantize.py
      .check = check_settings,
      .mark = mark,
      .made = [](const PackedWeight& weight, const ActivationQuant&,
                 QuantizeConfig&) { return has_real_zeros(weight); },
      .round_like = round_like};
}

}  // namespace llmpress
