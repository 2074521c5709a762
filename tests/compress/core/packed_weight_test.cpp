#include "compress/core/packed_weight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "compress/core/float_formats.h"
#include "compress/core/table4.h"
#include "tests/compress/core/packed_weight_examples.h"

namespace llmpress {
namespace {

TEST(PackedWeight, EveryTypeDecodesAsItsFormulaSays) {
  EXPECT_EQ(values_of(dense_example()),
            (Floats{1, -2, 0.5f, 0, 3, 4, 5, -6, 7, 8}));
  EXPECT_EQ(values_of(grouped_example()),
            (Floats{0, 7, 4, 0, 0, 0.25f, 0, -1, -7, 4}));
  EXPECT_EQ(values_of(int8_example()),
            (Floats{-64.5f, 63, 1, 0, 0.5f, 12, 14, -2, 16, 18}));
  EXPECT_EQ(values_of(fp8_example()), (Floats{1, 2, -1, 2, 0, 6, 6, 3, -4, 4}));
  EXPECT_EQ(values_of(table4_example()),
            (Floats{-1, 1, 0, -1, 2, 0, 2, -2, 4, 0}));
  EXPECT_EQ(values_of(micro_example(MicroFp4Kind::kMxfp4)),
            (Floats{1, 6, -1, -0.5f, 2, 2, 2, 4, 4, 6}));
  EXPECT_EQ(values_of(micro_example(MicroFp4Kind::kNvfp4)),
            (Floats{0.5f, 3, -0.5f, -0.25f, 1, 0.5f, 0.5f, 1, 1, 1.5f}));
  EXPECT_EQ(values_of(sparse_example()),
            (Floats{0, 2, 0, 0, -1, 3, 0, 0, 0.5f, 0}));
  EXPECT_EQ(values_of(sparse_int_example()),
            (Floats{0, 0.5f, 0, -4, 0, 0, 24, 0}));
  const Floats blocks = values_of(ggml_example());
  EXPECT_EQ(blocks[0], -8);
  EXPECT_EQ(blocks[16], -8);
  EXPECT_EQ(blocks[15], 7);
  EXPECT_EQ(blocks[32 + 3], 2.5f);
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
            (Floats{-2.5f, 2.5f, 0, -2.5f, 2, 0, 2, -2, lowest, 0}));
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
  EXPECT_EQ(stored_bytes(ggml_example()), 2u * 18);
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
  EXPECT_EQ(describe(ggml_example()), "q4_0");
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

}  // namespace
}  // namespace llmpress
