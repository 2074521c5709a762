// One small weight of each packed type, shared by the tests of packed weights.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "compress/core/packed_weight.h"
#include "compress/core/rng.h"

namespace llmpress {

using Octets = std::vector<std::uint8_t>;
using Floats = std::vector<float>;

inline Floats values_of(const PackedWeight& weight) {
  const MatrixF W = dequantize(weight);
  EXPECT_EQ(W.rows(), rows_of(weight));
  EXPECT_EQ(W.cols(), cols_of(weight));
  return {W.data().begin(), W.data().end()};
}

inline GroupedIntWeight grouped(std::size_t out, std::size_t in, int bits,
                                std::size_t group_size) {
  GroupedIntWeight w{
      .out = out, .in = in, .bits = bits, .group_size = group_size};
  Rng rng(in);
  Matrix<std::uint8_t> codes(out, in);
  for (auto& c : codes.data()) {
    c = static_cast<std::uint8_t>(rng.below(std::uint64_t{1} << bits));
  }
  w.codes = pack_rows(codes.view(), bits);
  for (std::size_t k = 0; k < out * w.groups(); ++k) {
    w.scales.push_back(static_cast<float>(rng.below(8) + 1) / 16);
    w.zeros.push_back(
        static_cast<std::uint8_t>(rng.below(std::uint64_t{1} << bits)));
  }
  return w;
}

// Two rows of five, one of each packed type, with their values by hand.

inline DenseWeight dense_example() {
  return make_dense(MatrixF({1, -2, 0.5f, 0, 3, 4, 5, -6, 7, 8}, 2, 5).view(),
                    DType::kBF16);
}

inline GroupedIntWeight grouped_example() {
  const Matrix<std::uint8_t> codes({0, 7, 3, 1, 2, 5, 4, 6, 0, 7}, 2, 5);
  return {.out = 2,
          .in = 5,
          .bits = 3,
          .group_size = 2,
          .scale_dtype = DType::kF16,
          .codes = pack_rows(codes.view(), 3),
          .scales = {1, 2, -0.5f, 0.25f, 1, 4},
          .zeros = {0, 1, 2, 4, 7, 6}};
}

inline Int8Weight int8_example() {
  return {.out = 2,
          .in = 5,
          .codes = {-128, 127, 0, 1, 2, 3, 4, 0, 5, 6},
          .scales = {0.5f, 2},
          .zeros = {1, -3},
          .outlier_columns = {2},
          .outlier_values = {0x3c00, 0xc000}};  // 1, -2
}

inline Fp8Weight fp8_example() {
  // 0x38 is 1, 0x40 is 2, 0xb8 is -1 in E4M3.
  return {.out = 2,
          .in = 5,
          .block_rows = 1,
          .block_cols = 3,
          .codes = {0x38, 0x40, 0xb8, 0x38, 0, 0x40, 0x40, 0x38, 0xb8, 0x38},
          .scales = {1, 2, 3, 4}};
}

inline Table4Weight table4_example() {
  // Blocks of 4 over ten elements: the second crosses the rows.
  return {.out = 2,
          .in = 5,
          .block_size = 4,
          .codes = {0x0f, 0x70, 0xf7, 0xf0, 0xf7},
          .absmax = {1, 2, 4}};
}

inline MicroFp4Weight micro_example(MicroFp4Kind kind) {
  return {.out = 2,
          .in = 5,
          .kind = kind,
          .codes = {0x72, 0x9a, 0x04, 0x11, 0x22, 0x03},
          .scales = kind == MicroFp4Kind::kMxfp4 ? Octets{127, 129}
                                                 : Octets{0x38, 0x40},
          .global_scale = kind == MicroFp4Kind::kMxfp4 ? 1.0f : 2.0f};
}

inline SparseWeight sparse_example() {
  return make_sparse(MatrixF({0, 2, 0, 0, -1, 3, 0, 0, 0.5f, 0}, 2, 5).view(),
                     SparsePattern::kBitmask, DType::kF16);
}

inline SparseWeight sparse_int_example() {
  // Groups of 4 of 8 columns; z is 8 and 3.
  const Matrix<std::uint8_t> codes({8, 9, 8, 0, 3, 3, 15, 3}, 1, 8);
  return make_sparse(GroupedIntWeight{.out = 1,
                                      .in = 8,
                                      .bits = 4,
                                      .group_size = 4,
                                      .codes = pack_rows(codes.view(), 4),
                                      .scales = {0.5f, 2},
                                      .zeros = {8, 3}},
                     SparsePattern::k2of4);
}

// Two rows of one q4_0 block: d = 1 and -0.5, codes 0 to 15 twice.
inline GgmlWeight ggml_example() {
  GgmlWeight w{.out = 2, .in = 32, .type = GgmlType::kQ4_0};
  for (const int high : {0x3c, 0xb8}) {
    w.blocks.push_back(std::byte{0});
    w.blocks.push_back(static_cast<std::byte>(high));
    for (int q = 0; q < 16; ++q) {
      w.blocks.push_back(static_cast<std::byte>(q | q << 4));
    }
  }
  return w;
}

inline std::vector<PackedWeight> examples() {
  return {dense_example(),
          grouped_example(),
          int8_example(),
          fp8_example(),
          table4_example(),
          micro_example(MicroFp4Kind::kMxfp4),
          micro_example(MicroFp4Kind::kNvfp4),
          sparse_example(),
          sparse_int_example(),
          ggml_example()};
}

}  // namespace llmpress
