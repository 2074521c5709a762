#include "compress/core/packed/weight_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "compress/core/error.h"
#include "tests/compress/core/packed_weight_examples.h"

namespace llmpress {
namespace {

MatrixF random(std::size_t out, std::size_t in, std::uint64_t seed) {
  MatrixF W(out, in);
  Rng rng(seed);
  for (float& w : W.data()) w = static_cast<float>(rng.normal());
  return W;
}

// Bit for bit, and sound.
void expect_rows(const PackedWeight& weight, Stretch rows) {
  const PackedWeight part = take_rows(weight, rows);
  check(part, describe(weight));
  ASSERT_EQ(rows_of(part), rows.count);
  ASSERT_EQ(cols_of(part), cols_of(weight));
  MatrixF wanted(rows.count, cols_of(weight));
  dequantize_rows(weight, rows.first, wanted.view());
  const MatrixF found = dequantize(part);
  EXPECT_EQ(std::memcmp(found.data().data(), wanted.data().data(),
                        wanted.data().size_bytes()),
            0)
      << describe(weight) << " " << rows.first << " + " << rows.count;
}

TEST(WeightRows, AreTheRowsOfEveryPackedType) {
  for (const PackedWeight& weight : examples()) {
    const std::size_t grain = row_grain(weight, 1), out = rows_of(weight);
    for (std::size_t first = 0; grain != 0 && first < out; first += grain) {
      expect_rows(weight, {first, std::min(grain, out - first)});
    }
    expect_rows(weight, {0, out});
  }
}

TEST(WeightRows, JoinToTheWholeOfEveryPackedType) {
  for (const PackedWeight& weight : examples()) {
    const std::size_t grain = row_grain(weight, 1), out = rows_of(weight);
    if (grain == 0) continue;
    std::vector<PackedWeight> parts;
    for (std::size_t first = 0; first < out; first += grain) {
      parts.push_back(take_rows(weight, {first, std::min(grain, out - first)}));
    }
    const PackedWeight joined = join_rows(std::move(parts));
    check(joined, describe(weight));
    EXPECT_EQ(joined.index(), weight.index());
    EXPECT_EQ(values_of(joined), values_of(weight)) << describe(weight);
  }
}

TEST(WeightRows, JoinSparseRowsOfDifferentLengths) {
  MatrixF W = random(6, 40, 3);
  for (std::size_t k = 0; k < W.size(); ++k) {
    if (k % (2 + k / 40) == 0) W.data()[k] = 0;
  }
  const PackedWeight whole =
      make_sparse(W.view(), SparsePattern::kBitmask, DType::kF32);
  const PackedWeight joined =
      join_rows({take_rows(whole, {0, 1}), take_rows(whole, {1, 3}),
                 take_rows(whole, {4, 2})});
  check(joined, "joined");
  EXPECT_EQ(values_of(joined), values_of(whole));
}

TEST(WeightRows, CutSparseRowsOfDifferentLengths) {
  MatrixF W = random(6, 40, 3);
  for (std::size_t k = 0; k < W.size(); ++k) {
    if (k % (2 + k / 40) == 0) W.data()[k] = 0;
  }
  const SparseWeight dense =
      make_sparse(W.view(), SparsePattern::kBitmask, DType::kBF16);
  for (std::size_t first = 0; first < 6; ++first) {
    expect_rows(dense, {first, 6 - first});
  }
}

// Scales over several rows are not cut.
TEST(WeightRows, AreCutWhereNoScaleLiesAcross) {
  Fp8Weight blocks{.out = 300, .in = 8, .block_rows = 96, .block_cols = 4};
  blocks.codes.assign(300 * 8, 0x38);
  blocks.scales = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(row_grain(blocks, 64), 192u);
  expect_rows(blocks, {192, 108});
  expect_rows(blocks, {0, 192});
  Fp8Weight tensor = blocks;
  tensor.block_rows = 300;
  tensor.block_cols = 8;
  tensor.scales = {0.5f};
  EXPECT_EQ(row_grain(tensor, 64), 64u);
  expect_rows(tensor, {64, 64});

  Table4Weight table{.out = 8, .in = 32, .block_size = 64};
  table.codes.assign(8 * 16, 0x5a);
  table.absmax = {1, 2, 3, 4};
  EXPECT_EQ(row_grain(table, 1), 0u);
  EXPECT_EQ(row_grain(table, 2), 2u);
  expect_rows(table, {2, 4});
}

// Their scales become floats of the same values.
TEST(WeightRows, AreOfDoubleQuantizedTables) {
  Table4Weight table{.out = 600, .in = 64, .block_size = 64};
  Rng rng(4);
  for (std::size_t k = 0; k < 600 * 32; ++k) {
    table.codes.push_back(static_cast<std::uint8_t>(rng.below(256)));
  }
  for (std::size_t k = 0; k < 600; ++k) {
    table.absmax_codes.push_back(static_cast<std::uint8_t>(rng.below(256)));
  }
  table.nested_absmax = {0.5f, 0.25f, 2};
  table.nested_offset = 0.125f;
  EXPECT_EQ(row_grain(table, 64), 64u);
  expect_rows(table, {192, 384});
  expect_rows(table, {576, 24});
}

}  // namespace
}  // namespace llmpress
