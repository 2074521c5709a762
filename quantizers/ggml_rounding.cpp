#include "quantizers/ggml_rounding.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "quantizers/ggml_grid_rounding.h"
#include "quantizers/ggml_row_rounding.h"
#include "quantizers/ggml_scale_search.h"

namespace llmpress {
namespace {

using Values = std::span<const float>;

float through_f16(float x) { return f16_to_float(f16_from_float(x)); }

float inverse_of(float x) { return x != 0 ? 1.0f / x : 0.0f; }

// Towards zero, as the reference's conversions; what does not fit is clamped, and
// 0 times the infinite inverse of a subnormal scale is 0.
std::uint8_t truncated(float x, float most) {
  return static_cast<std::uint8_t>(x > 0.0f ? (x < most ? x : most) : 0.0f);
}

// The first of the largest magnitude, with its sign.
float peak_of(Values x) {
  float magnitude = 0, peak = 0;
  for (const float v : x) {
    if (magnitude < std::fabs(v)) {
      magnitude = std::fabs(v);
      peak = v;
    }
  }
  return peak;
}

float sum_of_squares(Values x) {
  float sum = 0;
  for (const float v : x) sum += v * v;
  return sum;
}

// What a search knows of one block.
struct Problem {
  const GgmlLayout& layout;
  Values x, importance;
  float mean_square;  // of the row

  bool weighted() const { return !importance.empty(); }
  std::size_t sub_blocks() const { return x.size() / layout.step; }
  Values sub(std::size_t j) const {
    return x.subspan(j * layout.step, layout.step);
  }
};

// importance sqrt(variance + x^2) of sub-block j.
std::array<float, 64> importance_weights(const Problem& p, std::size_t j,
                                         float variance) {
  std::array<float, 64> weights{};
  const Values x = p.sub(j);
  const Values importance = p.importance.subspan(j * p.layout.step, x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    weights[i] = importance[i] * std::sqrt(variance + x[i] * x[i]);
  }
  return weights;
}

// --- one scale a block -------------------------------------------------------

// Code `zero` is 0 and code 0 has the largest magnitude, so that d may be
// negative.
void round_signed(const Problem& p, GgmlBlock& b) {
  const int zero = p.layout.zero;
  if (p.weighted()) {
    const auto weights = importance_weights(p, 0, p.mean_square);
    b.d = fit_signed(p.x, zero, Values(weights).first(p.x.size()),
                     std::span(b.codes).first(p.x.size()));
    return;
  }
  b.d = peak_of(p.x) / -static_cast<float>(zero);
  const float inverse = inverse_of(b.d);
  const auto most = static_cast<float>(p.layout.levels - 1);
  for (std::size_t i = 0; i < p.x.size(); ++i) {
    b.codes[i] =
        truncated(p.x[i] * inverse + (static_cast<float>(zero) + 0.5f), most);
  }
}

void round_affine(const Problem& p, GgmlBlock& b) {
  const int most = p.layout.levels - 1;
  if (p.weighted()) {
    const auto weights = importance_weights(p, 0, p.mean_square);
    const AffineFit fit =
        fit_affine(p.x, most, Values(weights).first(p.x.size()), {},
                   std::span(b.codes).first(p.x.size()));
    b.d = fit.scale;
    b.dmin = fit.minimum;
    return;
  }
  const auto [low, high] = std::ranges::minmax(p.x);
  b.d = (high - low) / static_cast<float>(most);
  b.dmin = -low;
  const float inverse = inverse_of(b.d);
  for (std::size_t i = 0; i < p.x.size(); ++i) {
    b.codes[i] =
        truncated((p.x[i] - low) * inverse + 0.5f, static_cast<float>(most));
  }
}

void round_octets(const Problem& p, GgmlBlock& b) {
  b.d = std::fabs(peak_of(p.x)) / 127.0f;
  const float inverse = inverse_of(b.d);
  for (std::size_t i = 0; i < p.x.size(); ++i) {
    b.codes[i] = truncated(std::round(p.x[i] * inverse) + 128.0f, 255.0f);
  }
}

void round_ternary(const Problem& p, GgmlBlock& b) {
  b.d = std::fabs(peak_of(p.x));
  const float inverse = inverse_of(b.d);
  for (std::size_t i = 0; i < p.x.size(); ++i) {
    b.codes[i] = truncated(std::round(p.x[i] * inverse) + 1.0f, 2.0f);
  }
}

// Of E2M1's values the nearest; of two as near the smaller code.
std::uint8_t nearest_e2m1(float x, float scale) {
  std::uint8_t best = 0;
  float error = std::fabs(static_cast<float>(kDoubledE2M1[0]) * scale - x);
  for (std::uint8_t code = 1; code < 16; ++code) {
    const float own =
        std::fabs(static_cast<float>(kDoubledE2M1[code]) * scale - x);
    if (own < error) {
      error = own;
      best = code;
    }
  }
  return best;
}

std::int16_t e8m0_of(float magnitude) {
  if (!(magnitude > 0)) return 0;
  const float exponent = std::floor(std::log2(magnitude)) - 2 + 127;
  return static_cast<std::int16_t>(std::clamp(exponent, 0.0f, 254.0f));
}

// Unsigned E4M3 of x >= 0, half away from zero; from 248 on the largest, 448.
std::int16_t ue4m3_of(float x) {
  if (!(x > 0)) return 0;
  if (x >= 0x1p-6f) {
    int exponent = 0;
    const float fraction = std::frexp(std::min(x, 448.0f), &exponent);
    const int eighths = static_cast<int>(fraction * 16 + 0.5f);  // 8 .. 16
    const int code = (exponent + 6) * 8 + eighths - 8;
    return static_cast<std::int16_t>(code < 0x78 ? code : 0x7e);
  }
  return static_cast<std::int16_t>(std::min(x * 512 + 0.5f, 7.0f));
}

void round_micro(const Problem& p, GgmlBlock& b) {
  b.d = 1;
  const bool mxfp4 = p.layout.type == GgmlType::kMxfp4;
  for (std::size_t j = 0; j < p.sub_blocks(); ++j) {
    const float magnitude = std::fabs(peak_of(p.sub(j)));
    b.scale_codes[j] = mxfp4 ? e8m0_of(magnitude) : ue4m3_of(magnitude / 6.0f);
    const float scale = scale_of(p.layout, b, j);
    for (std::size_t i = j * p.layout.step; i < (j + 1) * p.layout.step; ++i) {
      b.codes[i] = nearest_e2m1(p.x[i], scale);
    }
  }
}

// --- super-blocks ------------------------------------------------------------

// Codes of sub-blocks whose scale is not 0 are taken anew, by the scales and
// minima as they are stored.
void round_again(const Problem& p, GgmlBlock& b) {
  const GgmlLayout& l = p.layout;
  for (std::size_t j = 0; j < p.sub_blocks(); ++j) {
    const float scale = scale_of(l, b, j);
    if (scale == 0) continue;
    const float minimum = minimum_of(l, b, j);
    for (std::size_t i = j * l.step; i < (j + 1) * l.step; ++i) {
      const float x = l.minima ? p.x[i] + minimum : p.x[i];
      b.codes[i] = static_cast<std::uint8_t>(
          std::clamp(nearest_code(x / scale), -l.zero, l.levels - 1 - l.zero) +
          l.zero);
    }
  }
}

// Scales and minima of sub-blocks before they are rounded, and the sums of
// their weights.
struct SubBlocks {
  std::array<float, kGgmlMostSubBlocks> scales{}, minima{}, weights{};
};

// Without importance: |x| for q2_K, |x| + root mean square for the others.
AffineFit fit_plain_sub_block(const Problem& p, std::size_t j,
                              std::span<std::uint8_t> codes) {
  const Values x = p.sub(j);
  std::array<float, 64> weights{};
  const bool two_bits = p.layout.levels == 4;
  const float mean =
      two_bits ? 0.0f
               : std::sqrt(sum_of_squares(x) / static_cast<float>(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    weights[i] = mean + std::fabs(x[i]);
  }
  const bool wide = p.layout.levels == 16;
  return fit_affine(x, p.layout.levels - 1, Values(weights).first(x.size()),
                    {.first = wide ? -1.0f : -0.5f,
                     .step = 0.1f,
                     .steps = wide ? 20 : 15,
                     .absolute = two_bits},
                    codes);
}

AffineFit fit_weighted_sub_block(const Problem& p, std::size_t j,
                                 float variance, std::span<std::uint8_t> codes,
                                 float& sum) {
  const auto weights = importance_weights(p, j, variance);
  const Values own = Values(weights).first(p.layout.step);
  for (const float w : own) sum += w;
  return fit_affine(p.sub(j), p.layout.levels - 1, own, {}, codes);
}

void round_scales_by_largest(const Problem& p, const SubBlocks& s,
                             GgmlBlock& b) {
  const auto most = static_cast<float>(p.layout.most_scale);
  const std::size_t count = p.sub_blocks();
  const auto largest = [&](const auto& values) {
    return std::max(
        0.0f,
        *std::max_element(values.begin(),
                          values.begin() + static_cast<std::ptrdiff_t>(count)));
  };
  const float scale = largest(s.scales), minimum = largest(s.minima);
  const float of_scale = scale > 0 ? most / scale : 0.0f;
  const float of_minimum = minimum > 0 ? most / minimum : 0.0f;
  for (std::size_t j = 0; j < count; ++j) {
    b.scale_codes[j] = static_cast<std::int16_t>(std::clamp(
        nearest_code(of_scale * s.scales[j]), 0, p.layout.most_scale));
    b.min_codes[j] = static_cast<std::uint8_t>(std::clamp(
        nearest_code(of_minimum * s.minima[j]), 0, p.layout.most_scale));
  }
  b.d = through_f16(scale / most);
  b.dmin = through_f16(minimum / most);
}

void round_scales_by_fit(const Problem& p, const SubBlocks& s, GgmlBlock& b) {
  const std::size_t count = p.sub_blocks();
  const Values weights = Values(s.weights).first(count);
  std::array<std::uint8_t, kGgmlMostSubBlocks> codes{};
  const auto own = std::span(codes).first(count);
  b.d = through_f16(fit_positive(Values(s.scales).first(count),
                                 p.layout.most_scale, weights, own));
  std::ranges::copy(own, b.scale_codes.begin());
  b.dmin = through_f16(fit_positive(Values(s.minima).first(count),
                                    p.layout.most_scale, weights, own));
  std::ranges::copy(own, b.min_codes.begin());
}

// q2_K, q4_K, q5_K.
void round_affine_super(const Problem& p, GgmlBlock& b) {
  SubBlocks s;
  const float squares = sum_of_squares(p.x);
  const float count = static_cast<float>(p.x.size());
  const float variance =
      p.layout.levels == 4 ? squares / count : 2 * squares / count;
  for (std::size_t j = 0; j < p.sub_blocks(); ++j) {
    const auto codes =
        std::span(b.codes).subspan(j * p.layout.step, p.layout.step);
    const AffineFit fit =
        p.weighted()
            ? fit_weighted_sub_block(p, j, variance, codes, s.weights[j])
            : fit_plain_sub_block(p, j, codes);
    s.scales[j] = fit.scale;
    s.minima[j] = fit.minimum;
  }
  if (p.weighted()) {
    round_scales_by_fit(p, s, b);
  } else {
    round_scales_by_largest(p, s, b);
  }
  round_again(p, b);
}

void round_q3_k(const Problem& p, GgmlBlock& b) {
  SubBlocks s;
  const float variance = 2 * sum_of_squares(p.x) / 256;
  for (std::size_t j = 0; j < p.sub_blocks(); ++j) {
    const auto codes =
        std::span(b.codes).subspan(j * p.layout.step, p.layout.step);
    if (p.weighted()) {
      const auto weights = importance_weights(p, j, variance);
      const Values own = Values(weights).first(p.layout.step);
      for (const float w : own) s.weights[j] += w;
      s.scales[j] = fit_signed(p.sub(j), p.layout.zero, own, codes);
    } else {
      s.scales[j] = fit_signed_stepwise(p.sub(j), p.layout.zero, codes);
    }
  }
  constexpr int kHalf = 32;
  const Values scales = Values(s.scales).first(p.sub_blocks());
  b.scale_codes.fill(-kHalf);
  if (p.weighted()) {
    std::array<std::uint8_t, kGgmlMostSubBlocks> codes{};
    b.d = through_f16(fit_signed(
        scales, kHalf, Values(s.weights).first(scales.size()), codes));
    for (std::size_t j = 0; j < scales.size(); ++j) {
      b.scale_codes[j] = static_cast<std::int16_t>(codes[j] - kHalf);
    }
  } else if (const float peak = peak_of(scales); peak != 0) {
    const float inverse = -32.0f / peak;
    for (std::size_t j = 0; j < scales.size(); ++j) {
      b.scale_codes[j] = static_cast<std::int16_t>(
          std::clamp(nearest_code(inverse * scales[j]), -kHalf, kHalf - 1));
    }
    b.d = through_f16(1 / inverse);
  }
  round_again(p, b);
}

void round_q6_k(const Problem& p, GgmlBlock& b) {
  constexpr float kZeroBelow = 1e-15f;
  SubBlocks s;
  for (std::size_t j = 0; j < p.sub_blocks(); ++j) {
    const std::size_t at = j * p.layout.step;
    // The importance alone: the reference leaves the magnitude out here.
    const Values weights =
        p.weighted() ? p.importance.subspan(at, p.layout.step) : Values();
    s.scales[j] = fit_signed(p.sub(j), p.layout.zero, weights,
                             std::span(b.codes).subspan(at, p.layout.step));
  }
  const float peak = peak_of(Values(s.scales).first(p.sub_blocks()));
  if (std::fabs(peak) < kZeroBelow) {
    b = GgmlBlock{};
    return;
  }
  const float inverse = -128.0f / peak;
  b.d = through_f16(1 / inverse);
  for (std::size_t j = 0; j < p.sub_blocks(); ++j) {
    b.scale_codes[j] = static_cast<std::int16_t>(
        std::clamp(nearest_code(inverse * s.scales[j]), -128, 127));
  }
  round_again(p, b);
}

// iq4_nl, iq4_xs.
void round_table(const Problem& p, GgmlBlock& b) {
  const std::span<const std::int8_t> table(p.layout.table, 16);
  const float variance =
      sum_of_squares(p.x) * (2.0f / static_cast<float>(p.x.size()));
  SubBlocks s;
  for (std::size_t j = 0; j < p.sub_blocks(); ++j) {
    std::array<float, 64> weights{};
    const Values x = p.sub(j);
    if (p.weighted()) {
      weights = importance_weights(p, j, variance);
    } else {
      for (std::size_t i = 0; i < x.size(); ++i) weights[i] = x[i] * x[i];
    }
    s.scales[j] = fit_table(x, table, Values(weights).first(x.size()));
  }
  const bool super = p.sub_blocks() > 1;
  const float d = super ? -peak_of(Values(s.scales).first(p.sub_blocks())) / 32
                        : s.scales[0];
  b.d = d;
  const float inverse = inverse_of(d);
  for (std::size_t j = 0; j < p.sub_blocks(); ++j) {
    float scale = d;
    if (super) {
      const int code = std::clamp(nearest_code(inverse * s.scales[j]), -32, 31);
      b.scale_codes[j] = static_cast<std::int16_t>(code);
      scale = d * static_cast<float>(code);
    }
    const float own = inverse_of(scale);
    for (std::size_t i = j * p.layout.step; i < (j + 1) * p.layout.step; ++i) {
      b.codes[i] = nearest_entry(table, own * p.x[i]);
    }
  }
}

// Types with codebooks.
void round_grid(const Problem& p, GgmlBlock& b) {
  const float variance = sum_of_squares(p.x) / static_cast<float>(p.x.size());
  std::array<float, kGgmlMostElements> weights{};
  for (std::size_t i = 0; i < p.x.size(); ++i) {
    weights[i] = (p.weighted() ? p.importance[i] : 1.0f) *
                 std::sqrt(variance + p.x[i] * p.x[i]);
  }
  b = fit_grid_block(p.layout.type, p.x, weights);
}

void fit(const Problem& p, GgmlBlock& b) {
  switch (p.layout.type) {
    case GgmlType::kQ4_0:
    case GgmlType::kQ5_0:
      return round_signed(p, b);
    case GgmlType::kQ4_1:
    case GgmlType::kQ5_1:
      return round_affine(p, b);
    case GgmlType::kQ8_0:
      return round_octets(p, b);
    case GgmlType::kQ2_K:
    case GgmlType::kQ4_K:
    case GgmlType::kQ5_K:
      return round_affine_super(p, b);
    case GgmlType::kQ3_K:
      return round_q3_k(p, b);
    case GgmlType::kQ6_K:
      return round_q6_k(p, b);
    case GgmlType::kIq4Nl:
    case GgmlType::kIq4Xs:
      return round_table(p, b);
    case GgmlType::kTq1_0:
    case GgmlType::kTq2_0:
      return round_ternary(p, b);
    case GgmlType::kMxfp4:
    case GgmlType::kNvfp4:
      return round_micro(p, b);
    case GgmlType::kIq1S:
    case GgmlType::kIq1M:
    case GgmlType::kIq2Xxs:
    case GgmlType::kIq2Xs:
    case GgmlType::kIq2S:
    case GgmlType::kIq3Xxs:
    case GgmlType::kIq3S:
      return round_grid(p, b);
    case GgmlType::kF32:
    case GgmlType::kF16:
    case GgmlType::kBF16:
    case GgmlType::kF64:
    case GgmlType::kI8:
    case GgmlType::kI16:
    case GgmlType::kI32:
    case GgmlType::kI64:
    case GgmlType::kQ8_1:
    case GgmlType::kQ8_K:
      break;
  }
  fail(ErrorCode::kUnsupported, "weights of type {} are not written",
       facts(p.layout.type).name);
}

}  // namespace

GgmlBlock fit_ggml_block(GgmlType type, std::span<const float> x,
                         std::span<const float> importance, float mean_square) {
  GgmlBlock block;
  fit({layout(type), x, importance, mean_square}, block);
  return block;
}

void round_row_to_ggml(GgmlType type, std::span<const float> row,
                       std::span<const float> importance,
                       std::span<std::byte> blocks) {
  if (importance.empty() && rounds_plain_rows(type)) {
    return round_plain_row(type, row, blocks);
  }
  const GgmlTypeFacts& f = facts(type);
  const float mean_square =
      sum_of_squares(row) / static_cast<float>(row.size());
  for (std::size_t at = 0, b = 0; at < row.size(); at += f.elements, ++b) {
    const GgmlBlock block = fit_ggml_block(
        type, row.subspan(at, f.elements),
        importance.empty() ? Values() : importance.subspan(at, f.elements),
        mean_square);
    pack_ggml_block(type, block, blocks.subspan(b * f.bytes, f.bytes));
  }
}

GgmlType fitting_ggml_type(GgmlType type, std::size_t in) {
  const auto fits = [&](GgmlType t) { return in % facts(t).elements == 0; };
  if (fits(type)) return type;
  struct Smaller {
    GgmlType type, instead;
  };
  constexpr Smaller kSmaller[] = {
      {GgmlType::kQ2_K, GgmlType::kQ4_0},
      {GgmlType::kQ3_K, GgmlType::kQ4_0},
      {GgmlType::kQ4_K, GgmlType::kQ5_0},
      {GgmlType::kQ5_K, GgmlType::kQ5_1},
      {GgmlType::kQ6_K, GgmlType::kQ8_0},
      {GgmlType::kTq1_0, GgmlType::kQ4_0},
      {GgmlType::kTq2_0, GgmlType::kQ4_0},
      {GgmlType::kIq4Xs, GgmlType::kIq4Nl},
      {GgmlType::kIq1S, GgmlType::kIq4Nl},
      {GgmlType::kIq1M, GgmlType::kIq4Nl},
      {GgmlType::kIq2Xxs, GgmlType::kIq4Nl},
      {GgmlType::kIq2Xs, GgmlType::kIq4Nl},
      {GgmlType::kIq2S, GgmlType::kIq4Nl},
      {GgmlType::kIq3Xxs, GgmlType::kIq4Nl},
      {GgmlType::kIq3S, GgmlType::kIq4Nl},
      {GgmlType::kNvfp4, GgmlType::kMxfp4},
  };
  for (const Smaller& row : kSmaller) {
    if (row.type == type && fits(row.instead)) return row.instead;
  }
  return GgmlType::kF16;
}

PackedWeight round_to_fitting_ggml(ConstMatrixView W, GgmlType type,
                                   ThreadPool& pool,
                                   std::span<const float> importance) {
  const GgmlType fitting = fitting_ggml_type(type, W.cols());
  if (fitting == GgmlType::kF16) return make_dense(W, DType::kF16);
  return round_to_ggml(W, fitting, pool, importance);
}

namespace {

// Rows a task, which never hold more than a few megabytes in floating point.
constexpr std::size_t kRowsPerTask = 4;

GgmlWeight unset_blocks(std::size_t out, std::size_t in, GgmlType type) {
  const GgmlTypeFacts& f = facts(type);
  layout(type);  // refuses what is not written
  if (in % f.elements != 0) {
    fail(ErrorCode::kInvalidArgument,
         "rows of {} weights are no whole number of {} blocks of {}", in,
         f.name, f.elements);
  }
  GgmlWeight weight{.out = out, .in = in, .type = type};
  weight.blocks.resize(weight.out * weight.row_bytes());
  return weight;
}

std::span<std::byte> row_of(GgmlWeight& weight, std::size_t o) {
  return std::span(weight.blocks)
      .subspan(o * weight.row_bytes(), weight.row_bytes());
}

}  // namespace

GgmlWeight round_to_ggml(ConstMatrixView W, GgmlType type, ThreadPool& pool,
                         std::span<const float> importance) {
  GgmlWeight weight = unset_blocks(W.rows(), W.cols(), type);
  pool.for_ranges(
      weight.out, kRowsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          round_row_to_ggml(type, W.row(o), importance, row_of(weight, o));
        }
      });
  return weight;
}

PackedWeight round_to_fitting_ggml(const PackedWeight& stored, GgmlType type,
                                   ThreadPool& pool) {
  const GgmlType fitting = fitting_ggml_type(type, cols_of(stored));
  if (fitting == GgmlType::kF16) {
    return make_dense(dequantize(stored).view(), DType::kF16);
  }
  GgmlWeight weight = unset_blocks(rows_of(stored), cols_of(stored), fitting);
  pool.for_ranges(weight.out, kRowsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    MatrixF rows(end - begin, weight.in);
                    dequantize_rows(stored, begin, rows.view());
                    for (std::size_t o = begin; o < end; ++o) {
                      round_row_to_ggml(fitting, rows.row(o - begin), {},
                                        row_of(weight, o));
                    }
                  });
  return weight;
}

}  // namespace llmpress
