#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/packed_weight.h"
#include "tests/compress/core/packed_weight_examples.h"

namespace llmpress {
namespace {

TEST(SparseWeight, HoldsNonZerosInColumnOrderAfterTheMask) {
  const SparseWeight w = sparse_example();
  EXPECT_EQ(w.mask, (Octets{0b10010, 0b01001}));
  EXPECT_EQ(w.row_offsets, (std::vector<std::uint64_t>{0, 2, 4}));
  EXPECT_EQ(w.data.size(), 8u);
}

TEST(SparseWeight, TwoOfFourKeepsTheFirstZerosWhereNonZerosAreFew) {
  const SparseWeight w =
      make_sparse(MatrixF({0, 0, 0, 5, 0, 0, 0, 0, 1, 2, 0, 0}, 1, 12).view(),
                  SparsePattern::k2of4, DType::kF32);
  EXPECT_EQ(w.mask, (Octets{0b00111001, 0b0011}));
  EXPECT_EQ(values_of(w), (Floats{0, 0, 0, 5, 0, 0, 0, 0, 1, 2, 0, 0}));
  check(w, "w");
}

TEST(SparseWeight, RefusesWhatItsPatternCannotHold) {
  const auto make = [](std::size_t in, float value) {
    MatrixF W(1, in);
    for (float& x : W.data()) x = value;
    return make_sparse(W.view(), SparsePattern::k2of4, DType::kF32);
  };
  EXPECT_THROW(make(8, 1.0f), Error);  // four of four
  EXPECT_THROW(make(6, 0.0f), Error);  // a group of two
  EXPECT_THROW(make_sparse(grouped(2, 8, 3, 8), SparsePattern::kBitmask),
               Error);
  GroupedIntWeight w = grouped(2, 8, 4, 8);
  w.g_idx.assign(8, 0);
  EXPECT_THROW(make_sparse(w, SparsePattern::kBitmask), Error);
}

TEST(SparseWeight, OfAGroupedWeightDecodesToTheSameNumbers) {
  for (const int bits : {4, 8}) {
    GroupedIntWeight w = grouped(5, 53, bits, 16);
    EXPECT_EQ(values_of(make_sparse(w, SparsePattern::kBitmask)), values_of(w));
    w.symmetric = true;
    w.zeros.clear();
    const SparseWeight s = make_sparse(w, SparsePattern::kBitmask);
    check(s, "s");
    EXPECT_EQ(values_of(s), values_of(w));
  }
}

}  // namespace
}  // namespace llmpress
