#include "compress/core/packed_weight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "compress/core/error.h"
#include "compress/core/float_formats.h"
#include "compress/core/rng.h"
#include "compress/core/table4.h"

namespace llmpress {
namespace {

using Octets = std::vector<std::uint8_t>;
using Floats = std::vector<float>;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Floats values_of(const PackedWeight& weight) {
  const MatrixF W = dequantize(weight);
  EXPECT_EQ(W.rows(), rows_of(weight));
  EXPECT_EQ(W.cols(), cols_of(weight));
  return {W.data().begin(), W.data().end()};
}

GroupedIntWeight grouped(std::size_t out, std::size_t in, int bits,
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

DenseWeight dense_example() {
  return make_dense(MatrixF({1, -2, 0.5f, 0, 3, 4, 5, -6, 7, 8}, 2, 5).view(),
                    DType::kBF16);
}

GroupedIntWeight grouped_example() {
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

Int8Weight int8_example() {
  return {.out = 2,
          .in = 5,
          .codes = {-128, 127, 0, 1, 2, 3, 4, 0, 5, 6},
          .scales = {0.5f, 2},
          .zeros = {1, -3},
          .outlier_columns = {2},
          .outlier_values = {0x3c00, 0xc000}};  // 1, -2
}

Fp8Weight fp8_example() {
  // 0x38 is 1, 0x40 is 2, 0xb8 is -1 in E4M3.
  return {.out = 2,
          .in = 5,
          .block_rows = 1,
          .block_cols = 3,
          .codes = {0x38, 0x40, 0xb8, 0x38, 0, 0x40, 0x40, 0x38, 0xb8, 0x38},
          .scales = {1, 2, 3, 4}};
}

Table4Weight table4_example() {
  // Blocks of 4 over ten elements: the second crosses the rows.
  return {.out = 2,
          .in = 5,
          .block_size = 4,
          .codes = {0x0f, 0x70, 0xf7, 0xf0, 0x7f},
          .absmax = {1, 2, 4}};
}

MicroFp4Weight micro_example(MicroFp4Kind kind) {
  return {.out = 2,
          .in = 5,
          .kind = kind,
          .codes = {0x72, 0x9a, 0x04, 0x11, 0x22, 0x03},
          .scales = kind == MicroFp4Kind::kMxfp4 ? Octets{127, 129}
                                                 : Octets{0x38, 0x40},
          .global_scale = kind == MicroFp4Kind::kMxfp4 ? 1.0f : 2.0f};
}

SparseWeight sparse_example() {
  return make_sparse(MatrixF({0, 2, 0, 0, -1, 3, 0, 0, 0.5f, 0}, 2, 5).view(),
                     SparsePattern::kBitmask, DType::kF16);
}

SparseWeight sparse_int_example() {
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

std::vector<PackedWeight> examples() {
  return {dense_example(),
          grouped_example(),
          int8_example(),
          fp8_example(),
          table4_example(),
          micro_example(MicroFp4Kind::kMxfp4),
          micro_example(MicroFp4Kind::kNvfp4),
          sparse_example(),
          sparse_int_example()};
}

TEST(PackedWeight, EveryTypeDecodesAsItsFormulaSays) {
  EXPECT_EQ(values_of(dense_example()),
            (Floats{1, -2, 0.5f, 0, 3, 4, 5, -6, 7, 8}));
  EXPECT_EQ(values_of(grouped_example()),
            (Floats{0, 7, 4, 0, 0, 0.25f, 0, -1, -7, 4}));
  EXPECT_EQ(values_of(int8_example()),
            (Floats{-64.5f, 63, 1, 0, 0.5f, 12, 14, -2, 16, 18}));
  EXPECT_EQ(values_of(fp8_example()), (Floats{1, 2, -1, 2, 0, 6, 6, 3, -4, 4}));
  EXPECT_EQ(values_of(table4_example()),
            (Floats{-1, 1, 0, -1, 2, 0, 2, -2, 0, 4}));
  EXPECT_EQ(values_of(micro_example(MicroFp4Kind::kMxfp4)),
            (Floats{1, 6, -1, -0.5f, 2, 2, 2, 4, 4, 6}));
  EXPECT_EQ(values_of(micro_example(MicroFp4Kind::kNvfp4)),
            (Floats{0.5f, 3, -0.5f, -0.25f, 1, 0.5f, 0.5f, 1, 1, 1.5f}));
  EXPECT_EQ(values_of(sparse_example()),
            (Floats{0, 2, 0, 0, -1, 3, 0, 0, 0.5f, 0}));
  EXPECT_EQ(values_of(sparse_int_example()),
            (Floats{0, 0.5f, 0, -4, 0, 0, 24, 0}));
}

TEST(PackedWeight, RowsDecodeTheSameOnTheirOwn) {
  for (const PackedWeight& weight : examples()) {
    const MatrixF W = dequantize(weight);
    for (std::size_t o = 0; o < W.rows(); ++o) {
      MatrixF row(1, W.cols());
      dequantize_rows(weight, o, row.view());
      EXPECT_TRUE(std::ranges::equal(row.data(), W.row(o))) << describe(weight);
    }
  }
}

TEST(PackedWeight, GroupedIntegersDecodeAtEveryWidthAndGroup) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const std::size_t in : {1u, 7u, 32u, 101u}) {
      for (const std::size_t group : {std::size_t{1}, std::size_t{32}, in}) {
        if (group > in) continue;
        GroupedIntWeight w = grouped(3, in, bits, group);
        const auto codes = unpack_rows(w);
        const auto expect = [&](const std::function<float(std::size_t)>& zero) {
          check(w, "w");
          const MatrixF W = dequantize(w);
          for (std::size_t o = 0; o < 3; ++o) {
            for (std::size_t i = 0; i < in; ++i) {
              const std::size_t g = w.g_idx.empty() ? i / group : w.g_idx[i];
              const std::size_t slot = o * w.groups() + g;
              const float code = codes(o, i);
              ASSERT_EQ(W(o, i), w.scales[slot] * (code - zero(slot)));
            }
          }
        };
        expect([&](std::size_t slot) {
          return static_cast<float>(w.zeros[slot]);
        });
        for (std::size_t i = 0; i < in; ++i) {
          w.g_idx.push_back(static_cast<std::uint32_t>((in - 1 - i) / group));
        }
        expect([&](std::size_t slot) {
          return static_cast<float>(w.zeros[slot]);
        });
        w.float_zeros.assign(w.scales.size(), 1.25f);
        w.zeros.clear();
        expect([&](std::size_t) { return 1.25f; });
        w.float_zeros.clear();
        w.symmetric = true;
        expect([&](std::size_t) { return std::ldexp(1.0f, bits - 1); });
      }
    }
  }
}

TEST(PackedWeight, DoublyQuantizedAbsmaxComesFromTheNestedMap) {
  Table4Weight w = table4_example();
  w.absmax = {};
  w.absmax_codes = {255, 127, 0};
  w.nested_absmax = {0.5f};
  w.nested_offset = 2;
  check(w, "w");
  const float lowest = nested_absmax_map()[0] * 0.5f + 2;
  // absmax: 1 * .5 + 2, 0 * .5 + 2, map[0] * .5 + 2.
  EXPECT_EQ(values_of(w),
            (Floats{-2.5f, 2.5f, 0, -2.5f, 2, 0, 2, -2, 0, lowest}));
  EXPECT_EQ(stored_bytes(w), 5u + 3 + 4 + 4);
  EXPECT_EQ(describe(w), "nf4 b4 dq");
}

TEST(PackedWeight, OneInt8ScaleServesTheWholeTensor) {
  const Int8Weight w{
      .out = 2, .in = 2, .codes = {1, -2, 3, 4}, .scales = {0.5f}};
  check(w, "w");
  EXPECT_EQ(values_of(w), (Floats{0.5f, -1, 1.5f, 2}));
  EXPECT_EQ(describe(w), "int8 tensor");
}

TEST(PackedWeight, StoredBytesCountEveryBuffer) {
  EXPECT_EQ(stored_bytes(dense_example()), 20u);
  // Words 2 x 1, f16 scales 6; zeros: 3 groups, ceil(2 * 3 / 32) words each.
  EXPECT_EQ(stored_bytes(grouped_example()), 8u + 12 + 12);
  EXPECT_EQ(stored_bytes(int8_example()), 10u + 8 + 8 + 4 + 4);
  EXPECT_EQ(stored_bytes(fp8_example()), 10u + 16);
  EXPECT_EQ(stored_bytes(table4_example()), 5u + 12);
  EXPECT_EQ(stored_bytes(micro_example(MicroFp4Kind::kMxfp4)), 6u + 2);
  EXPECT_EQ(stored_bytes(micro_example(MicroFp4Kind::kNvfp4)), 6u + 2 + 4);
  EXPECT_EQ(stored_bytes(sparse_example()), 2u + 16 + 8);
  // Four codes of 4 bits, two f32 scales, zeros: two groups of one word.
  EXPECT_EQ(stored_bytes(sparse_int_example()), 1u + 2 + 8 + 8);
}

TEST(PackedWeight, FourBitsInGroupsOf32TakeFourAndFiveEighthsBits) {
  GroupedIntWeight w = grouped(64, 256, 4, 32);
  w.scale_dtype = DType::kF16;
  EXPECT_DOUBLE_EQ(bits_per_weight(w), 4.625);
  w.symmetric = true;
  w.zeros.clear();
  EXPECT_DOUBLE_EQ(bits_per_weight(w), 4.5);
  // A row of 33 codes is padded to five words.
  GroupedIntWeight padded = grouped(1, 33, 4, 33);
  EXPECT_EQ(stored_bytes(padded), 5u * 4 + 4 + 4);
}

TEST(PackedWeight, NamesSayTypeGroupAndSymmetry) {
  EXPECT_EQ(describe(dense_example()), "bf16");
  EXPECT_EQ(describe(grouped(2, 64, 4, 32)), "int4 g32 asym");
  GroupedIntWeight w = grouped(2, 64, 8, 64);
  EXPECT_EQ(describe(w), "int8 channel asym");
  w.symmetric = true;
  w.zeros.clear();
  w.g_idx.assign(64, 0);
  EXPECT_EQ(describe(w), "int8 channel sym g_idx");
  Int8Weight int8 = int8_example();
  EXPECT_EQ(describe(int8), "int8 channel asym +1 outliers");
  EXPECT_EQ(describe(Int8Weight{
                .out = 2, .in = 1, .codes = {1, 2}, .scales = {1, 1}}),
            "int8 channel");
  EXPECT_EQ(describe(fp8_example()), "fp8_e4m3 1x3");
  Fp8Weight fp8 = fp8_example();
  fp8.block_cols = 5;
  EXPECT_EQ(describe(fp8), "fp8_e4m3 channel");
  fp8.block_rows = 2;
  fp8.format = DType::kF8E5M2;
  EXPECT_EQ(describe(fp8), "fp8_e5m2 tensor");
  EXPECT_EQ(describe(table4_example()), "nf4 b4");
  EXPECT_EQ(describe(micro_example(MicroFp4Kind::kMxfp4)), "mxfp4");
  EXPECT_EQ(describe(micro_example(MicroFp4Kind::kNvfp4)), "nvfp4");
  EXPECT_EQ(describe(sparse_example()), "bitmask f16");
  EXPECT_EQ(describe(sparse_int_example()), "2:4 int4 g4 asym");
}

TEST(PackedWeight, PackedRowsUnpackToTheirCodes) {
  for (int bits = 2; bits <= 8; ++bits) {
    const GroupedIntWeight w = grouped(5, 37, bits, 10);
    EXPECT_EQ(pack_rows(unpack_rows(w).view(), bits), w.codes);
  }
}

TEST(PackedWeight, DenseValuesAreRoundedToTheirType) {
  const MatrixF W({0.1f, 1 + 0x1p-9f}, 1, 2);
  EXPECT_EQ(values_of(make_dense(W.view(), DType::kF32)),
            (Floats{0.1f, 1 + 0x1p-9f}));
  EXPECT_EQ(values_of(make_dense(W.view(), DType::kBF16)),
            (Floats{bf16_to_float(bf16_from_float(0.1f)), 1}));
}

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

}  // namespace
}  // namespace llmpress
