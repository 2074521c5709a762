#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "compress/core/error.h"
#include "compress/core/packed_weight.h"
#include "tests/compress/core/packed_weight_examples.h"

namespace llmpress {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(PackedWeightCheck, AcceptsWhatIsWellFormed) {
  for (const PackedWeight& weight : examples()) {
    EXPECT_NO_THROW(check(weight, "w")) << describe(weight);
  }
}

// Each damage to one example must be found, and named.
template <class Weight>
void expect_refused(const Weight& good,
                    const std::vector<std::function<void(Weight&)>>& damages) {
  for (std::size_t d = 0; d < damages.size(); ++d) {
    Weight bad = good;
    damages[d](bad);
    try {
      check(bad, "blk.q");
      ADD_FAILURE() << describe(good) << ": damage " << d << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruptFile);
      EXPECT_EQ(std::string(e.what()).rfind("blk.q: ", 0), 0u) << e.what();
    }
  }
}

constexpr std::size_t kHuge = std::size_t{1} << 61;

TEST(PackedWeightCheck, RefusesDamagedDenseWeights) {
  expect_refused<DenseWeight>(
      dense_example(),
      {[](auto& w) { w.data.pop_back(); },
       [](auto& w) { w.data.emplace_back(); },
       [](auto& w) { w.dtype = DType::kF32; },
       [](auto& w) { w.dtype = DType::kI16; }, [](auto& w) { w.out = 0; },
       [](auto& w) { w.in = kHuge; }, [](auto& w) { w.out = w.in = kHuge; }});
}

TEST(PackedWeightCheck, RefusesDamagedGroupedIntegers) {
  GroupedIntWeight good = grouped_example();
  good.g_idx = {0, 1, 2, 1, 0};
  expect_refused<GroupedIntWeight>(
      good,
      {[](auto& w) { w.codes.pop_back(); },
       [](auto& w) { w.scales.pop_back(); },
       [](auto& w) { w.zeros.pop_back(); }, [](auto& w) { w.zeros.clear(); },
       [](auto& w) { w.zeros[3] = 8; }, [](auto& w) { w.symmetric = true; },
       [](auto& w) { w.float_zeros = {1}; },
       [](auto& w) { w.g_idx.pop_back(); }, [](auto& w) { w.g_idx[4] = 3; },
       [](auto& w) { w.scales[1] = kNan; },
       [](auto& w) { w.scales[5] = -kInf; },
       [](auto& w) { w.scales[0] = 0.1f; },  // not an f16
       [](auto& w) { w.scale_dtype = DType::kI32; },
       [](auto& w) { w.group_size = 0; }, [](auto& w) { w.group_size = 6; },
       [](auto& w) { w.bits = 1; }, [](auto& w) { w.bits = 9; },
       [](auto& w) { w.out = kHuge; }});
}

TEST(PackedWeightCheck, RefusesDamagedInt8Weights) {
  expect_refused<Int8Weight>(
      int8_example(),
      {[](auto& w) { w.codes.pop_back(); },
       [](auto& w) { w.scales.push_back(1); },
       [](auto& w) { w.scales.clear(); }, [](auto& w) { w.scales[0] = kNan; },
       [](auto& w) { w.zeros.pop_back(); },
       [](auto& w) { w.zeros[0] = 1 << 30; },
       [](auto& w) { w.outlier_columns[0] = 5; },
       [](auto& w) { w.outlier_columns[0] = 1; },  // code not 0
       [](auto& w) {
         w.outlier_columns = {2, 2};
       },
       [](auto& w) {
         w.outlier_columns = {2, 2};
         w.outlier_values.resize(4);
       },
       [](auto& w) { w.outlier_values.pop_back(); },
       [](auto& w) { w.outlier_values[1] = 0x7c00; }});
}

TEST(PackedWeightCheck, RefusesDamagedEightBitFloats) {
  expect_refused<Fp8Weight>(
      fp8_example(),
      {[](auto& w) { w.codes.pop_back(); },
       [](auto& w) { w.scales.pop_back(); },
       [](auto& w) { w.scales[3] = kInf; }, [](auto& w) { w.block_rows = 0; },
       [](auto& w) { w.block_cols = 0; }, [](auto& w) { w.block_cols = 2; },
       [](auto& w) { w.format = DType::kF16; }});
}

TEST(PackedWeightCheck, RefusesDamagedFourBitTablesAndFloats) {
  expect_refused<Table4Weight>(table4_example(),
                               {[](auto& w) { w.codes.pop_back(); },
                                [](auto& w) { w.absmax.pop_back(); },
                                [](auto& w) { w.absmax[0] = kNan; },
                                [](auto& w) {
                                  w.absmax_codes = {1, 2, 3};
                                },
                                [](auto& w) { w.nested_absmax = {1}; },
                                [](auto& w) { w.nested_offset = kInf; },
                                [](auto& w) { w.block_size = 0; }});
  for (const auto kind : {MicroFp4Kind::kMxfp4, MicroFp4Kind::kNvfp4}) {
    expect_refused<MicroFp4Weight>(micro_example(kind),
                                   {[](auto& w) { w.codes.pop_back(); },
                                    [](auto& w) { w.scales.pop_back(); },
                                    [](auto& w) { w.scales[0] = 0xff; },
                                    [](auto& w) { w.global_scale = 0; },
                                    [](auto& w) { w.global_scale = kNan; }});
  }
}

TEST(PackedWeightCheck, RefusesDamagedSparseWeights) {
  expect_refused<SparseWeight>(
      sparse_example(),
      {[](auto& w) { w.mask.pop_back(); }, [](auto& w) { w.mask[0] ^= 1; },
       [](auto& w) { w.mask[0] ^= 0x30; },
       [](auto& w) { w.row_offsets[0] = 1; },
       [](auto& w) { w.row_offsets[1] = 3; },
       [](auto& w) {
         w.row_offsets = {1, 3, 5};
         w.data.resize(10);
       },
       [](auto& w) { w.row_offsets.pop_back(); },
       [](auto& w) { w.row_offsets.clear(); },
       [](auto& w) { w.data.pop_back(); }, [](auto& w) { w.codes = {1}; },
       [](auto& w) { w.pattern = SparsePattern::k2of4; }});
  expect_refused<SparseWeight>(
      sparse_int_example(),
      {[](auto& w) { w.codes.pop_back(); }, [](auto& w) { w.codes[0] = 16; },
       [](auto& w) { w.scales[1] = kNan; }, [](auto& w) { w.zeros.pop_back(); },
       [](auto& w) { w.zeros[0] = 16; }, [](auto& w) { w.mask[0] ^= 0b101; },
       [](auto& w) { w.bits = 5; }, [](auto& w) { w.group_size = 0; },
       [](auto& w) { w.data.resize(4); }});
}

TEST(PackedWeightCheck, RefusesDamagedBlocks) {
  expect_refused<GgmlWeight>(
      ggml_example(),
      {[](auto& w) { w.blocks.pop_back(); },
       [](auto& w) { w.blocks.emplace_back(); }, [](auto& w) { w.in = 31; },
       [](auto& w) { w.in = kHuge; }, [](auto& w) { w.out = 0; },
       [](auto& w) { w.type = GgmlType::kF16; },
       [](auto& w) { w.type = GgmlType::kIq3S; },
       // A scale that is infinite, and one that is no number.
       [](auto& w) { w.blocks[1] = std::byte{0x7c}; },
       [](auto& w) { w.blocks[19] = std::byte{0x7e}; }});
}

}  // namespace
}  // namespace llmpress
