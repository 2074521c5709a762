// Where rows of a folder's tensor lie in GGUF, by hand.
#include "formats/gguf/gguf_parts.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"

namespace llmpress {
namespace {

using Rows = std::vector<std::size_t>;

TEST(GgufRows, PutQueriesBeforeKeysBeforeValues) {
  // Heads of one row: two keys with two queries each, q q k v q q k v.
  EXPECT_EQ(
      gguf_row_order(GgufChange::kGroupedHeads, 8, {.heads = 4, .kv_heads = 2}),
      (Rows{0, 1, 4, 5, 2, 6, 3, 7}));
  // As many keys as queries, heads of two rows: q q k k v v, twice.
  EXPECT_EQ(gguf_row_order(GgufChange::kGroupedHeads, 12,
                           {.heads = 2, .kv_heads = 2}),
            (Rows{0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11}));
  EXPECT_THROW((void)gguf_row_order(GgufChange::kGroupedHeads, 9,
                                    {.heads = 4, .kv_heads = 2}),
               Error);
}

TEST(GgufRows, PutCoordinatesThatTurnTogetherSideBySide) {
  EXPECT_EQ(gguf_row_order(GgufChange::kQueryRows, 8, {.heads = 2}),
            (Rows{0, 2, 1, 3, 4, 6, 5, 7}));
}

// Heads of eight of which four turn: 0 with 2, 1 with 3.
TEST(GgufRows, LeaveTheCoordinatesThatDoNotTurn) {
  EXPECT_EQ(gguf_row_order(GgufChange::kKeyRows, 16,
                           {.heads = 4, .kv_heads = 2, .turned = 4}),
            (Rows{0, 2, 1, 3, 4, 5, 6, 7, 8, 10, 9, 11, 12, 13, 14, 15}));
}

// Two keys with three heads of values each, of one row: those of key 0 are 0, 1,
// 2 in the folder.
TEST(GgufRows, PutOneHeadOfValuesOfEachKeyAfterAnother) {
  const GgufRowSizes sizes{
      .delta_key_heads = 2, .delta_key_dim = 1, .delta_value_heads = 6};
  EXPECT_EQ(gguf_row_order(GgufChange::kTiledRows, 6, sizes),
            (Rows{0, 3, 1, 4, 2, 5}));
  // Behind two queries and two keys.
  EXPECT_EQ(gguf_row_order(GgufChange::kTiledInputs, 10, sizes),
            (Rows{0, 1, 2, 3, 4, 7, 5, 8, 6, 9}));
  EXPECT_THROW((void)gguf_row_order(GgufChange::kTiledRows, 7, sizes), Error);
  EXPECT_THROW((void)gguf_row_order(GgufChange::kTiledInputs, 3, sizes), Error);
  EXPECT_THROW((void)gguf_row_order(GgufChange::kTiledRows, 6, {}), Error);
}

TEST(GgufColumns, ChangePlacesAsWholeBlocks) {
  const GgufRowSizes sizes{.delta_key_heads = 2, .delta_value_heads = 4};
  std::vector<std::byte> matrix;
  for (int i = 0; i < 16; ++i) matrix.push_back(std::byte(i));
  // Two rows of heads of two octets: heads 0 1 2 3 become 0 2 1 3.
  const auto moved = reordered_columns(matrix, 2, 8, 2, sizes, true);
  std::vector<int> found;
  for (const std::byte b : moved) found.push_back(std::to_integer<int>(b));
  EXPECT_EQ(found, (std::vector<int>{0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10,
                                     11, 14, 15}));
  EXPECT_EQ(reordered_columns(moved, 2, 8, 2, sizes, false), matrix);
  // Blocks of two heads: nothing can move, unless nothing has to.
  EXPECT_THROW((void)reordered_columns(matrix, 2, 8, 4, sizes, true), Error);
  const GgufRowSizes alike{.delta_key_heads = 4, .delta_value_heads = 4};
  EXPECT_EQ(reordered_columns(matrix, 2, 8, 4, alike, true), matrix);
}

TEST(GgufParts, AreKeysAndValuesOfEachHead) {
  const GgufRowSizes sizes{.heads = 2, .latent_keys = 2, .latent_values = 1};
  EXPECT_EQ(gguf_part_rows(GgufChange::kLatentKeys, 6, sizes),
            (Rows{0, 1, 3, 4}));
  EXPECT_EQ(gguf_part_rows(GgufChange::kLatentValues, 6, sizes), (Rows{2, 5}));
  EXPECT_EQ(gguf_part_shape(GgufChange::kLatentKeys, 6, 5, sizes),
            (Rows{2, 5, 2}));
  EXPECT_THROW((void)gguf_part_rows(GgufChange::kLatentKeys, 7, sizes), Error);
}

TEST(GgufParts, AreInputsAndGatesOfEachKeyHead) {
  // Of each of two key heads: q, k, two values, two gates.
  const GgufRowSizes sizes{
      .delta_key_heads = 2, .delta_key_dim = 1, .delta_inner = 4};
  EXPECT_EQ(gguf_part_rows(GgufChange::kDeltaInputs, 12, sizes),
            (Rows{0, 6, 1, 7, 2, 3, 8, 9}));
  EXPECT_EQ(gguf_part_rows(GgufChange::kDeltaGates, 12, sizes),
            (Rows{4, 5, 10, 11}));
}

TEST(GgufParts, AreTheHalvesOfAMatrix) {
  EXPECT_EQ(gguf_part_rows(GgufChange::kUpperHalf, 4, {}), (Rows{0, 1}));
  EXPECT_EQ(gguf_part_rows(GgufChange::kLowerHalf, 4, {}), (Rows{2, 3}));
  EXPECT_THROW((void)gguf_part_rows(GgufChange::kLowerHalf, 5, {}), Error);
}

TEST(GgufParts, AreTransposedMatrixByMatrix) {
  const std::vector<float> values{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  EXPECT_EQ(transposed_each(values, 2, 2, 3),
            (std::vector<float>{1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12}));
}

TEST(GgufParts, OverflowIsSaidToBe) {
  const GgufRowSizes sizes{.heads = std::size_t{1} << 33,
                           .latent_keys = std::size_t{1} << 33};
  EXPECT_THROW((void)gguf_joined_rows(GgufChange::kLatentKeys, sizes), Error);
}

TEST(GgufChanges, OfValuesGoBack) {
  std::vector<float> values{-1.5f, 0, 2};
  change_values(GgufChange::kMinusExp, true, values);
  EXPECT_FLOAT_EQ(values[1], -1);
  change_values(GgufChange::kMinusExp, false, values);
  EXPECT_FLOAT_EQ(values[0], -1.5f);
  change_values(GgufChange::kPlusOne, true, values);
  EXPECT_FLOAT_EQ(values[2], 3);
  values = {1, 2};
  change_values(GgufChange::kTimes, true, values, {.output_factor = 0.5f});
  EXPECT_EQ(values, (std::vector<float>{0.5f, 1}));
}

// Of channels x, x, B, B, C, C with one tap each.
TEST(GgufChanges, MultiplyTheTapsOfEachPart) {
  const GgufRowSizes sizes{.groups = 2,
                           .delta_key_dim = 1,
                           .delta_inner = 2,
                           .tap_factors = {2, 4, 8}};
  std::vector<float> values(6, 1);
  change_values(GgufChange::kTapsTimes, true, values, sizes);
  EXPECT_EQ(values, (std::vector<float>{2, 2, 4, 4, 8, 8}));
  change_values(GgufChange::kTapsTimes, false, values, sizes);
  EXPECT_EQ(values, std::vector<float>(6, 1));
  std::vector<float> other(7, 1);
  EXPECT_THROW(change_values(GgufChange::kTapsTimes, true, other, sizes),
               Error);
  EXPECT_THROW(change_values(GgufChange::kTapsTimes, true, other, {}), Error);
}

TEST(GgufChanges, OfANormInGroupsMakeRowsOfThem) {
  const GgufRowSizes sizes{.groups = 2};
  using Shape = std::vector<std::size_t>;
  EXPECT_EQ(gguf_shape(GgufChange::kGroups, {6}, sizes), (Shape{2, 3}));
  EXPECT_EQ(folder_shape(GgufChange::kGroups, {2, 3}), Shape{6});
  EXPECT_EQ(gguf_shape(GgufChange::kGroups, {6}, {.groups = 1}), Shape{6});
  EXPECT_THROW((void)gguf_shape(GgufChange::kGroups, {7}, sizes), Error);
}

}  // namespace
}  // namespace llmpress
