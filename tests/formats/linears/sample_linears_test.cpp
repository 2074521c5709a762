#include "tests/formats/linears/sample_linears.h"

#include <gtest/gtest.h>

#include <random>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"

namespace llmpress {
namespace {

std::uint32_t next(std::mt19937& rng, std::uint32_t bound) {
  return static_cast<std::uint32_t>(rng()) % bound;
}

std::vector<float> sample_scales(std::size_t count, DType dtype) {
  std::mt19937 rng(3);
  std::vector<float> scales(count);
  for (float& s : scales) {
    s = (static_cast<float>(next(rng, 1000)) - 300.0f) / 4096.0f;
  }
  round_through(dtype, scales);
  return scales;
}

template <class T>
std::vector<T> sample_codes(std::size_t count, std::uint32_t bound) {
  std::mt19937 rng(5);
  std::vector<T> codes(count);
  for (T& c : codes) c = static_cast<T>(next(rng, bound));
  return codes;
}

SparseWeight sample_sparse(SparsePattern pattern, int bits) {
  MatrixF W = sample_matrix(5, 24);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) {
      if (i % 4 == o % 4 || i % 4 == (o + 1) % 4) W(o, i) = 0;
    }
  }
  if (pattern == SparsePattern::kBitmask) W(0, 5) = W(1, 2) = 0;
  if (bits == 0) return make_sparse(W.view(), pattern, DType::kBF16);
  // Codes of the masked places are the zero point.
  GroupedIntWeight q = sample_grouped(bits, 5, 24, 8, bits == 4);
  auto codes = unpack_rows(q);
  for (std::size_t o = 0; o < 5; ++o) {
    for (std::size_t i = 0; i < 24; ++i) {
      const auto zero = q.symmetric ? static_cast<std::uint8_t>(1 << (bits - 1))
                                    : q.zeros[o * 3 + i / 8];
      if (W(o, i) == 0) {
        codes(o, i) = zero;
      } else if (codes(o, i) == zero) {
        codes(o, i) ^= 1;
      }
    }
  }
  q.codes = pack_rows(std::as_const(codes).view(), bits);
  return make_sparse(q, pattern);
}

void expect_same(const ActivationQuant& a, const ActivationQuant& b,
                 const std::string& what) {
  EXPECT_TRUE(a == b) << what;
}

}  // namespace

MatrixF sample_matrix(std::size_t rows, std::size_t cols) {
  MatrixF W(rows, cols);
  for (std::size_t k = 0; k < W.size(); ++k) {
    W.data()[k] = (static_cast<float>((k * 37 + 11) % 101) - 50.0f) / 32.0f;
    if (W.data()[k] == 0) W.data()[k] = 0.5f;
  }
  return W;
}

GroupedIntWeight sample_grouped(int bits, std::size_t out, std::size_t in,
                                std::size_t group_size, bool symmetric) {
  GroupedIntWeight w{.out = out,
                     .in = in,
                     .bits = bits,
                     .group_size = group_size,
                     .symmetric = symmetric,
                     .scale_dtype = DType::kF16};
  const auto codes = sample_codes<std::uint8_t>(out * in, 1U << bits);
  w.codes = pack_rows({codes, out, in}, bits);
  w.scales = sample_scales(out * w.groups(), w.scale_dtype);
  if (!symmetric) {
    w.zeros = sample_codes<std::uint8_t>(out * w.groups(), 1U << bits);
    w.zeros[0] = 0;  // the zero that GPTQ's first format could not hold
  }
  return w;
}

Int8Weight sample_int8(std::size_t out, std::size_t in, bool whole_tensor,
                       bool zeros) {
  Int8Weight w{.out = out, .in = in, .scale_dtype = DType::kBF16};
  w.codes = sample_codes<std::int8_t>(out * in, 256);
  w.scales = sample_scales(whole_tensor ? 1 : out, w.scale_dtype);
  if (zeros) {
    for (std::size_t o = 0; o < w.scales.size(); ++o) {
      w.zeros.push_back(static_cast<int>(o * 51 % 256) - 128);
    }
  }
  return w;
}

Fp8Weight sample_fp8(std::size_t out, std::size_t in, std::size_t block_rows,
                     std::size_t block_cols) {
  Fp8Weight w{
      .out = out, .in = in, .block_rows = block_rows, .block_cols = block_cols};
  w.codes = sample_codes<std::uint8_t>(out * in, 127);
  w.scales = sample_scales(ceil_div(out, block_rows) * ceil_div(in, block_cols),
                           w.scale_dtype);
  return w;
}

Table4Weight sample_table4(Table4Kind kind, std::size_t out, std::size_t in,
                           bool nested) {
  Table4Weight w{.out = out, .in = in, .kind = kind};
  const std::size_t blocks = ceil_div(out * in, w.block_size);
  w.codes = sample_codes<std::uint8_t>(ceil_div(out * in, 2), 256);
  if (nested) {
    w.absmax_codes = sample_codes<std::uint8_t>(blocks, 256);
    w.nested_absmax = sample_scales(ceil_div(blocks, 256), DType::kF32);
    w.nested_offset = 0.1f;
  } else {
    w.absmax = sample_scales(blocks, DType::kF32);
  }
  return w;
}

MicroFp4Weight sample_micro_fp4(MicroFp4Kind kind, std::size_t out,
                                std::size_t in) {
  MicroFp4Weight w{.out = out, .in = in, .kind = kind};
  w.codes = sample_codes<std::uint8_t>(out * ceil_div(in, 2), 256);
  w.scales = sample_codes<std::uint8_t>(out * ceil_div(in, w.group()), 120);
  if (kind == MicroFp4Kind::kNvfp4) w.global_scale = 1720.32f;
  return w;
}

// Of q4_0, whose blocks are a half and 16 octets of codes.
GgmlWeight sample_q4_0(std::size_t out, std::size_t in) {
  GgmlWeight w{.out = out, .in = in, .type = GgmlType::kQ4_0};
  const auto octets = sample_codes<std::uint8_t>(out * w.row_bytes(), 256);
  for (std::size_t i = 0; i < octets.size(); ++i) {
    const std::size_t at = i % facts(w.type).bytes;
    w.blocks.push_back(std::byte{at == 0   ? std::uint8_t{0}
                                 : at == 1 ? std::uint8_t{0x34}
                                           : octets[i]});
  }
  return w;
}

std::vector<SampleLinear> sample_linears() {
  std::vector<SampleLinear> all;
  const auto add = [&](std::string what,
                       PackedWeight weight) -> LinearWeights& {
    all.push_back({std::move(what), {.weight = std::move(weight)}});
    return all.back().linear;
  };
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    add("dense", make_dense(sample_matrix(3, 7).view(), dtype)).bias = {1, -2,
                                                                        3};
  }
  for (int bits = 2; bits <= 8; ++bits) {
    add("grouped sym", sample_grouped(bits, 5, 33, 16, true));
    add("grouped asym", sample_grouped(bits, 37, 50, 7, false)).bias =
        std::vector<float>(37, 0.1f);
    add("by channel", sample_grouped(bits, 4, 32, 32, false));
  }
  GroupedIntWeight ordered = sample_grouped(4, 3, 40, 8, false);
  for (std::uint32_t i = 0; i < 40; ++i) ordered.g_idx.push_back(i * 3 % 5);
  add("act order", ordered);
  GroupedIntWeight hqq = sample_grouped(3, 3, 40, 8, false);
  hqq.zeros.clear();
  hqq.float_zeros = sample_scales(15, hqq.scale_dtype);
  add("float zeros", hqq);

  LinearWeights& w8a8 = add("w8a8", sample_int8(6, 10, false, false));
  w8a8.input = {.kind = ActivationQuant::Kind::kInt};
  LinearWeights& fixed = add("w8a8 static", sample_int8(6, 10, true, true));
  fixed.input = {.kind = ActivationQuant::Kind::kInt,
                 .range = ActivationQuant::Range::kStatic,
                 .symmetric = false,
                 .static_scale = 0.03f,
                 .static_zero = -5};
  LinearWeights& w4a8 = add("w4a8", sample_grouped(4, 4, 32, 16, true));
  w4a8.input = {.kind = ActivationQuant::Kind::kInt,
                .bits = 4,
                .range = ActivationQuant::Range::kTensor};
  Int8Weight outliers = sample_int8(6, 10, false, false);
  outliers.outlier_columns = {1, 9};
  for (std::size_t o = 0; o < 6; ++o)
    outliers.codes[o * 10 + 1] = outliers.codes[o * 10 + 9] = 0;
  for (std::uint16_t k = 0; k < 12; ++k) {
    outliers.outlier_values.push_back(static_cast<std::uint16_t>(0x3c00 + k));
  }
  add("llm.int8", outliers).input = {.kind = ActivationQuant::Kind::kInt,
                                     .outlier_threshold = 6.0f};

  add("fp8 tensor", sample_fp8(5, 9, 5, 9)).input = {
      .kind = ActivationQuant::Kind::kFp8,
      .range = ActivationQuant::Range::kStatic,
      .static_scale = 0.5f};
  add("fp8 channel", sample_fp8(5, 9, 1, 9)).input = {
      .kind = ActivationQuant::Kind::kFp8};
  add("fp8 block", sample_fp8(5, 9, 2, 4));
  add("fp8 block, inputs in groups", sample_fp8(5, 9, 2, 4)).input = {
      .kind = ActivationQuant::Kind::kFp8,
      .range = ActivationQuant::Range::kGroup,
      .group_size = 3};
  Fp8Weight mxfp8 = sample_fp8(3, 64, 1, 32);
  mxfp8.scale_dtype = DType::kBF16;
  mxfp8.scales = {1, 0.5f, 0x1p-127f, 0x1p127f, 4, 0x1p-20f};
  add("mxfp8", mxfp8);
  Fp8Weight e5m2 = sample_fp8(5, 9, 1, 9);
  e5m2.format = DType::kF8E5M2;
  for (auto& c : e5m2.codes) c &= 0x7b;
  add("e5m2", e5m2);

  for (const auto kind : {Table4Kind::kNf4, Table4Kind::kFp4}) {
    add("table4", sample_table4(kind, 5, 33, false));
    add("table4 nested", sample_table4(kind, 40, 500, true));
  }
  for (const auto kind : {MicroFp4Kind::kMxfp4, MicroFp4Kind::kNvfp4}) {
    add("micro fp4", sample_micro_fp4(kind, 3, 64));
    add("micro fp4 ragged", sample_micro_fp4(kind, 3, 41));
  }
  for (const auto pattern : {SparsePattern::kBitmask, SparsePattern::k2of4}) {
    for (const int bits : {0, 4, 8})
      add("sparse", sample_sparse(pattern, bits));
  }
  add("gguf blocks", sample_q4_0(3, 64));
  LinearWeights& rotated = add("rotated", sample_grouped(4, 4, 32, 16, true));
  rotated.input_hadamard = 16;
  LinearWeights& rotated_dense =
      add("rotated dense", make_dense(sample_matrix(3, 8).view(), DType::kF32));
  rotated_dense.input_hadamard = 8;
  return all;
}

void expect_same_linear(const LinearWeights& a, const LinearWeights& b,
                        const std::string& what) {
  ASSERT_EQ(a.weight.index(), b.weight.index()) << what;
  EXPECT_EQ(describe(a.weight), describe(b.weight)) << what;
  EXPECT_EQ(stored_bytes(a.weight), stored_bytes(b.weight)) << what;
  const MatrixF A = dequantize(a.weight), B = dequantize(b.weight);
  ASSERT_EQ(A.rows(), B.rows()) << what;
  ASSERT_EQ(A.cols(), B.cols()) << what;
  EXPECT_TRUE(std::equal(A.data().begin(), A.data().end(), B.data().begin()))
      << what;
  EXPECT_EQ(a.bias, b.bias) << what;
  expect_same(a.input, b.input, what);
  EXPECT_EQ(a.input_hadamard, b.input_hadamard) << what;
}

TEST(SampleLinears, AreAllWellFormed) {
  for (const SampleLinear& s : sample_linears()) {
    EXPECT_NO_THROW(check(s.linear.weight, s.what));
  }
}

}  // namespace llmpress
