#include "quantizers/learned_grid.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>
#include <variant>

#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/table4.h"
#include "quantizers/int_code.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 16;
constexpr float kSmallestScale = 0x1p-24f;  // of f16, and a step above 0

// One way of rounding u = w / s each: the level, whether it moves with w, and
// the code that is stored.
struct WholeRounding {
  float lo, hi;

  float free_code(float u, float zero) const {
    constexpr float kOffGrid = 4096.0f;
    return round_half_even(clamp_to(u, -kOffGrid, kOffGrid)) + zero;
  }
  float level(float u, float zero) const {
    return clamp_to(free_code(u, zero), lo, hi) - zero;
  }
  bool inside(float u, float zero) const {
    return u + zero > lo && u + zero < hi;
  }
  std::uint8_t code(float u, float zero) const {
    return static_cast<std::uint8_t>(
        static_cast<std::int32_t>(clamp_to(free_code(u, zero), lo, hi)));
  }
};

template <std::uint8_t (*Encode)(float), float (*Decode)(std::uint8_t)>
struct Fp8Rounding {
  float hi;

  std::uint8_t code(float u, float) const {
    return Encode(clamp_to(u, -hi, hi));
  }
  float level(float u, float zero) const { return Decode(code(u, zero)); }
  bool inside(float u, float) const { return std::abs(u) < hi; }
};

struct TableRounding {
  std::span<const float> table;
  float lo, hi;

  // Ties to the lower, as table4.h.
  std::uint8_t code(float u, float) const {
    std::size_t best = 0;
    float distance = std::abs(u - table[0]);
    for (std::size_t c = 1; c < table.size(); ++c) {
      const float other = std::abs(u - table[c]);
      if (other < distance || (other == distance && table[c] < table[best])) {
        best = c;
        distance = other;
      }
    }
    return static_cast<std::uint8_t>(best);
  }
  float level(float u, float zero) const { return table[code(u, zero)]; }
  bool inside(float u, float) const { return u > lo && u < hi; }
};

template <class Levels, class Body>
void with_rounding(const Levels& levels, const Body& body) {
  switch (levels.kind) {
    case Levels::Kind::kWhole:
      return body(WholeRounding{levels.lo, levels.hi});
    case Levels::Kind::kE4M3:
      return body(Fp8Rounding<e4m3_from_float, e4m3_to_float>{levels.hi});
    case Levels::Kind::kE5M2:
      return body(Fp8Rounding<e5m2_from_float, e5m2_to_float>{levels.hi});
    case Levels::Kind::kTable:
      return body(TableRounding{levels.table, levels.lo, levels.hi});
  }
}

std::vector<float> whole_zeros(const PackedWeight& weight) {
  std::vector<float> zeros;
  if (const auto* const grouped = std::get_if<GroupedIntWeight>(&weight)) {
    zeros.assign(grouped->zeros.begin(), grouped->zeros.end());
  } else if (const auto* const int8 = std::get_if<Int8Weight>(&weight)) {
    for (const std::int32_t z : int8->zeros) {
      zeros.push_back(static_cast<float>(z));
    }
  }
  return zeros;
}

// Takes the codes of a weight, [out, in] octets.
struct SetCodes {
  Matrix<std::uint8_t> codes;

  void operator()(GroupedIntWeight& w) const {
    w.codes = pack_rows(codes.view(), w.bits);
  }
  void operator()(Int8Weight& w) const {
    std::ranges::transform(codes.data(), w.codes.begin(), [](std::uint8_t c) {
      return static_cast<std::int8_t>(c);
    });
  }
  void operator()(Fp8Weight& w) const {
    std::ranges::copy(codes.data(), w.codes.begin());
  }
  void operator()(Table4Weight& w) const {
    std::ranges::fill(w.codes, std::uint8_t{0});
    for (std::size_t k = 0; k < codes.size(); ++k) {
      const int shift = k % 2 == 0 ? 4 : 0;  // first in the high nibble
      w.codes[k / 2] =
          static_cast<std::uint8_t>(w.codes[k / 2] | codes.data()[k] << shift);
    }
  }
  template <class Other>
  void operator()(Other&) const {
    assert(false);  // levels_of() refuses it
  }
};

struct SetZeros {
  std::span<const float> zeros;

  void operator()(GroupedIntWeight& w) const {
    for (std::size_t k = 0; k < zeros.size(); ++k) {
      w.zeros[k] = static_cast<std::uint8_t>(zeros[k]);
    }
  }
  void operator()(Int8Weight& w) const {
    for (std::size_t k = 0; k < zeros.size(); ++k) {
      w.zeros[k] = static_cast<std::int32_t>(zeros[k]);
    }
  }
  template <class Other>
  void operator()(Other&) const {}
};

}  // namespace

LearnedGrid::Levels LearnedGrid::levels_of(const PackedWeight& weight) {
  if (const auto* const w = std::get_if<GroupedIntWeight>(&weight);
      w != nullptr && w->float_zeros.empty()) {
    return {.hi = max_int_code(w->bits)};
  }
  if (const auto* const w = std::get_if<Int8Weight>(&weight);
      w != nullptr && w->outlier_columns.empty()) {
    return {.lo = -128, .hi = 127};
  }
  if (const auto* const w = std::get_if<Fp8Weight>(&weight)) {
    return w->format == DType::kF8E4M3
               ? Levels{.kind = Levels::Kind::kE4M3, .hi = kE4M3Max}
               : Levels{.kind = Levels::Kind::kE5M2, .hi = kE5M2Max};
  }
  if (const auto* const w = std::get_if<Table4Weight>(&weight)) {
    const auto table = table4_values(w->kind);
    return {.kind = Levels::Kind::kTable,
            .lo = std::ranges::min(table),
            .hi = std::ranges::max(table),
            .table = table};
  }
  fail(ErrorCode::kUnsupported, "a weight stored as {} has no grid that learns",
       describe(weight));
}

LearnedGrid::LearnedGrid(PackedWeight start)
    : form_(std::move(start)),
      groups_(scale_layout(form_)),
      levels_(levels_of(form_)),
      scales_(learnable_scales(form_)),
      zeros_(whole_zeros(form_)) {
  if (const auto* const w = std::get_if<GroupedIntWeight>(&form_)) {
    fixed_zero_ = static_cast<float>(1 << (w->bits - 1));
  }
  settle();
}

float LearnedGrid::mean_scale() const {
  double sum = 0;
  for (const float s : scales_) sum += static_cast<double>(std::abs(s));
  return static_cast<float>(sum / static_cast<double>(scales_.size()));
}

void LearnedGrid::settle() {
  for (float& s : scales_) s = std::max(s, kSmallestScale);
  for (float& z : zeros_) z = clamp_to(z, levels_.lo, levels_.hi);
  set_scales(form_, scales_);
  stored_scales_ = learnable_scales(form_);
  stored_zeros_ = zeros_;
  for (float& z : stored_zeros_) z = round_half_even(z);
  std::visit(SetZeros{stored_zeros_}, form_);
}

float LearnedGrid::gradient_factor() const {
  const double weights = static_cast<double>(rows_of(form_)) *
                         static_cast<double>(cols_of(form_)) /
                         static_cast<double>(groups_.size());
  // Of a symmetric grid of whole numbers: those above its zero point.
  const double largest = static_cast<double>(levels_.hi) -
                         (zeros_.empty() && levels_.kind == Levels::Kind::kWhole
                              ? static_cast<double>(fixed_zero_)
                              : 0);
  return static_cast<float>(1 / std::sqrt(weights * largest));
}

void LearnedGrid::round_into(ConstMatrixView W, MatrixView<float> W_q,
                             ThreadPool& pool) const {
  with_rounding(levels_, [&](const auto& rounding) {
    pool.for_ranges(
        W.rows(), kRowsPerTask, [&](std::size_t begin, std::size_t end) {
          for (std::size_t o = begin; o < end; ++o) {
            const auto w = W.row(o);
            const auto to = W_q.row(o);
            for (std::size_t i = 0; i < w.size(); ++i) {
              const Step at = step_at(o, i);
              to[i] = at.scale * rounding.level(w[i] / at.scale, at.zero);
            }
          }
        });
  });
}

template <class Rounding>
void LearnedGrid::differentiate_row(const Rounding& rounding, std::size_t o,
                                    std::span<const float> w,
                                    std::span<float> d,
                                    std::span<double> scales,
                                    std::span<double> zeros) const {
  for (std::size_t i = 0; i < w.size(); ++i) {
    const Step at = step_at(o, i);
    const float u = w[i] / at.scale;
    const bool inside = rounding.inside(u, at.zero);
    const std::uint32_t g = groups_.column_group[i];
    scales[g] += static_cast<double>(
        d[i] * (rounding.level(u, at.zero) - (inside ? u : 0.0f)));
    if (inside) continue;
    if (!zeros.empty()) zeros[g] -= static_cast<double>(d[i] * at.scale);
    d[i] = 0;
  }
}

void LearnedGrid::differentiate(ConstMatrixView W, MatrixView<float> D,
                                std::span<float> d_scales,
                                std::span<float> d_zeros,
                                ThreadPool& pool) const {
  const std::size_t columns = groups_.columns;
  const auto factor = static_cast<double>(gradient_factor());
  with_rounding(levels_, [&](const auto& rounding) {
    pool.for_ranges(
        groups_.rows, kRowsPerTask, [&](std::size_t begin, std::size_t end) {
          for (std::size_t r = begin; r < end; ++r) {
            std::vector<double> scales(columns),
                zeros(d_zeros.empty() ? 0 : columns);
            const std::size_t last =
                std::min(W.rows(), (r + 1) * groups_.rows_each);
            for (std::size_t o = r * groups_.rows_each; o < last; ++o) {
              differentiate_row(rounding, o, W.row(o), D.row(o), scales, zeros);
            }
            for (std::size_t g = 0; g < columns; ++g) {
              const std::size_t at = r * columns + g;
              if (!d_scales.empty()) {
                d_scales[at] += static_cast<float>(factor * scales[g]);
              }
              if (!d_zeros.empty()) {
                d_zeros[at] += static_cast<float>(factor * zeros[g]);
              }
            }
          }
        });
  });
}

Matrix<std::uint8_t> LearnedGrid::codes(ConstMatrixView W,
                                        ThreadPool& pool) const {
  Matrix<std::uint8_t> codes(W.rows(), W.cols());
  with_rounding(levels_, [&](const auto& rounding) {
    pool.for_ranges(
        W.rows(), kRowsPerTask, [&](std::size_t begin, std::size_t end) {
          for (std::size_t o = begin; o < end; ++o) {
            for (std::size_t i = 0; i < W.cols(); ++i) {
              const Step at = step_at(o, i);
              codes(o, i) = rounding.code(W(o, i) / at.scale, at.zero);
            }
          }
        });
  });
  return codes;
}

PackedWeight LearnedGrid::pack(ConstMatrixView W, ThreadPool& pool) const {
  PackedWeight packed = form_;
  std::visit(SetCodes{codes(W, pool)}, packed);
  return packed;
}

}  // namespace llmpress
