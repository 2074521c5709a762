// A grid whose steps are learned while the weights on it learn (LSQ, Esser et
// al. 2020, arXiv:1902.08153; with zero points as LSQ+, arXiv:2004.09576):
//
//   W_q = s C(u),   u = W / s,   C(u) = clamp(round(u) + z, lo, hi) - z
//
// or, for fp8 and 4-bit tables, C(u) the nearest number of the format, clamped to
// its range. Rounding, that of s and z to what is stored too, is passed
// straight through (arXiv:1308.3432). With D = dL/dW_q, m = 1 where u is
// strictly within the range (-Q_N < u < Q_P) and 0 elsewhere (Eqs. 3 and 5):
//
//   dL/dW = D m
//   dL/ds = g sum D (C(u) - m u),   dL/dz = -g s sum D (1 - m)
//   g = 1 / sqrt(n Q_P)             (section 2.2)
//
// n the weights of a scale, Q_P the largest level of the grid. The zero point
// follows the same scale. Cost: one pass over the weight each way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/packed/scale_layout.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"

namespace llmpress {

class LearnedGrid {
 public:
  // Begins with the scales and zero points of `start`, which are what rounding
  // to nearest, or another method, found. Throws Error(kUnsupported) for a
  // weight whose scales cannot learn, or that is more than codes on a grid.
  explicit LearnedGrid(PackedWeight start);

  // What learns, [groups().rows, groups().columns]; zeros are empty for a
  // symmetric grid. After a change: settle().
  std::span<float> scales() { return scales_; }
  std::span<float> zeros() { return zeros_; }
  float mean_scale() const;  // of their magnitudes
  const ScaleLayout& groups() const { return groups_; }
  void settle();

  // W, W_q [out, in].
  void round_into(ConstMatrixView W, MatrixView<float> W_q,
                  ThreadPool& pool) const;
  // D becomes dL/dW; dL/ds and dL/dz are added to, empty where not wanted.
  void differentiate(ConstMatrixView W, MatrixView<float> D,
                     std::span<float> d_scales, std::span<float> d_zeros,
                     ThreadPool& pool) const;
  // What round_into() gives, as it is stored.
  PackedWeight pack(ConstMatrixView W, ThreadPool& pool) const;

 private:
  // How numbers in units of a scale are rounded: whole numbers from `lo` to
  // `hi`, as codes before the zero point is taken off; else levels.
  struct Levels {
    enum class Kind { kWhole, kE4M3, kE5M2, kTable } kind = Kind::kWhole;
    float lo = 0, hi = 0;
    std::span<const float> table{};  // by code
  };
  // Of a row of W and one of its groups.
  struct Step {
    float scale = 1, zero = 0;
  };

  static Levels levels_of(const PackedWeight& weight);
  Step step_at(std::size_t o, std::size_t i) const {
    const std::size_t at =
        o / groups_.rows_each * groups_.columns + groups_.column_group[i];
    return {stored_scales_[at],
            stored_zeros_.empty() ? fixed_zero_ : stored_zeros_[at]};
  }
  float gradient_factor() const;  // g
  template <class Rounding>
  void differentiate_row(const Rounding& rounding, std::size_t o,
                         std::span<const float> w, std::span<float> d,
                         std::span<double> scales,
                         std::span<double> zeros) const;
  Matrix<std::uint8_t> codes(ConstMatrixView W, ThreadPool& pool) const;

  PackedWeight form_;  // with the stored scales and zero points
  ScaleLayout groups_;
  Levels levels_;
  std::vector<float> scales_, zeros_;                // as they learn
  std::vector<float> stored_scales_, stored_zeros_;  // as they are stored
  float fixed_zero_ = 0;
};

}  // namespace llmpress
