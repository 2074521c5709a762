// Random weights of every packed type, for the tests of the kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/ggml/ggml_block.h"
#include "compress/core/packed_weight.h"
#include "compress/core/rng.h"
#include "tests/compress/core/ggml/random_grid_codes.h"

namespace llmpress::testing {

inline MatrixF random_matrix(std::size_t rows, std::size_t cols, Rng& rng,
                             double scale = 1) {
  MatrixF m(rows, cols);
  for (float& x : m.data()) x = static_cast<float>(rng.normal() * scale);
  return m;
}

inline std::vector<float> random_scales(std::size_t count, DType dtype,
                                        Rng& rng) {
  std::vector<float> s(count);
  for (float& x : s) {
    x = static_cast<float>((0.5 + rng.uniform()) *
                           (rng.below(8) == 0 ? -0.01 : 0.01));
  }
  round_through(dtype, s);
  return s;
}

template <class T>
std::vector<T> random_codes(std::size_t count, std::uint64_t bound, Rng& rng,
                            int shift = 0) {
  std::vector<T> c(count);
  for (T& x : c) {
    x = static_cast<T>(static_cast<int>(rng.below(bound)) + shift);
  }
  return c;
}

enum class Zeros { kSymmetric, kInteger, kReal };

inline GroupedIntWeight random_grouped(std::size_t out, std::size_t in,
                                       int bits, std::size_t group_size,
                                       Zeros zeros, bool permuted, DType scale,
                                       Rng& rng) {
  GroupedIntWeight w{.out = out, .in = in};
  w.bits = bits;
  w.group_size = std::min(group_size, in);
  w.symmetric = zeros == Zeros::kSymmetric;
  w.scale_dtype = scale;
  const auto codes = random_codes<std::uint8_t>(out * in, 1u << bits, rng);
  w.codes = pack_rows({codes, out, in}, bits);
  w.scales = random_scales(out * w.groups(), scale, rng);
  if (zeros == Zeros::kInteger) {
    w.zeros = random_codes<std::uint8_t>(out * w.groups(), 1u << bits, rng);
  } else if (zeros == Zeros::kReal) {
    for (std::size_t i = 0; i < out * w.groups(); ++i) {
      w.float_zeros.push_back(
          static_cast<float>(rng.uniform() * ((1 << bits) - 1)));
    }
  }
  if (permuted) {
    for (std::size_t i = 0; i < in; ++i) {
      w.g_idx.push_back(static_cast<std::uint32_t>(i / w.group_size));
    }
    for (std::size_t i = in; i > 1; --i) {
      std::swap(w.g_idx[i - 1], w.g_idx[rng.below(i)]);
    }
  }
  return w;
}

inline Int8Weight random_int8(std::size_t out, std::size_t in, bool per_row,
                              bool zeros, std::size_t outliers, Rng& rng) {
  Int8Weight w{.out = out, .in = in};
  w.codes = random_codes<std::int8_t>(out * in, 255, rng, -127);
  const std::size_t slots = per_row ? out : 1;
  w.scales = random_scales(slots, DType::kF32, rng);
  if (zeros) w.zeros = random_codes<std::int32_t>(slots, 256, rng, -128);
  for (std::size_t i = 0; i < in && w.outlier_columns.size() < outliers;
       i += 1 + rng.below(5)) {
    w.outlier_columns.push_back(static_cast<std::uint32_t>(i));
    for (std::size_t o = 0; o < out; ++o) w.codes[o * in + i] = 0;
  }
  for (std::size_t i = 0; i < out * w.outlier_columns.size(); ++i) {
    w.outlier_values.push_back(
        f16_from_float(static_cast<float>(rng.normal())));
  }
  return w;
}

inline Fp8Weight random_fp8(std::size_t out, std::size_t in, DType format,
                            std::size_t block_rows, std::size_t block_cols,
                            Rng& rng) {
  Fp8Weight w{.out = out, .in = in};
  w.format = format;
  w.block_rows = std::min(block_rows, out);
  w.block_cols = std::min(block_cols, in);
  for (std::size_t i = 0; i < out * in; ++i) {
    const auto magnitude = static_cast<std::uint8_t>(
        rng.below(format == DType::kF8E4M3 ? 0x7f : 0x7c));
    w.codes.push_back(
        static_cast<std::uint8_t>(magnitude | (rng.below(2) << 7)));
  }
  w.scales =
      random_scales(ceil_div(out, w.block_rows) * ceil_div(in, w.block_cols),
                    DType::kF32, rng);
  return w;
}

inline Table4Weight random_table4(std::size_t out, std::size_t in,
                                  Table4Kind kind, std::size_t block,
                                  bool nested, Rng& rng) {
  Table4Weight w{.out = out, .in = in};
  w.kind = kind;
  w.block_size = block;
  w.codes = random_codes<std::uint8_t>(ceil_div(out * in, 2), 256, rng);
  const std::size_t blocks = ceil_div(out * in, block);
  if (nested) {
    w.absmax_codes = random_codes<std::uint8_t>(blocks, 256, rng);
    w.nested_absmax = random_scales(ceil_div(blocks, 256), DType::kF32, rng);
    w.nested_offset = 0.02f;
  } else {
    w.absmax = random_scales(blocks, DType::kF32, rng);
  }
  return w;
}

inline MicroFp4Weight random_micro(std::size_t out, std::size_t in,
                                   MicroFp4Kind kind, Rng& rng) {
  MicroFp4Weight w{.out = out, .in = in};
  w.kind = kind;
  w.codes = random_codes<std::uint8_t>(out * ceil_div(in, 2), 256, rng);
  const std::size_t count = out * ceil_div(in, w.group());
  if (kind == MicroFp4Kind::kMxfp4) {
    w.scales = random_codes<std::uint8_t>(count, 12, rng, 115);
  } else {
    w.scales = random_codes<std::uint8_t>(count, 0x7f, rng);
    w.global_scale = 1720.32f;
  }
  return w;
}

// Any codes; scales of ordinary size, of some sub-blocks 0.
inline GgmlWeight random_ggml(std::size_t out, std::size_t in, GgmlType type,
                              Rng& rng) {
  GgmlWeight w{.out = out, .in = in, .type = type};
  const GgmlTypeFacts& f = facts(type);
  const GgmlLayout& l = layout(type);
  w.blocks.resize(out * w.row_bytes());
  for (std::size_t at = 0; at < w.blocks.size(); at += f.bytes) {
    GgmlBlock block{.d = f16_to_float(f16_from_float(
                        static_cast<float>(rng.uniform()) * 0.02f + 0.001f))};
    block.dmin = l.minima ? block.d / 2 : 0.0f;
    set_random_codes(type, rng, block);
    for (std::size_t j = 0; j < f.elements / l.step; ++j) {
      if (type == GgmlType::kMxfp4) {
        block.scale_codes[j] = static_cast<std::int16_t>(115 + rng.below(12));
      } else if (type == GgmlType::kNvfp4) {
        block.scale_codes[j] = static_cast<std::int16_t>(rng.below(0x40));
      } else if (l.most_scale > 1) {
        const int codes = std::min(16, l.most_scale - l.least_scale + 1);
        const int code =
            static_cast<int>(rng.below(static_cast<std::uint64_t>(codes))) +
            l.least_scale;
        block.scale_codes[j] = static_cast<std::int16_t>(code);
        // A scale of 0 with a minimum is left to a test of its own.
        block.min_codes[j] =
            static_cast<std::uint8_t>(code == 0 ? 0 : rng.below(16));
      }
    }
    pack_ggml_block(type, block, std::span(w.blocks).subspan(at, f.bytes));
  }
  return w;
}

// A matrix of which about `kept` of the elements are not zero, or exactly two
// of every four for 2:4.
inline MatrixF random_sparse(std::size_t out, std::size_t in,
                             SparsePattern pattern, double kept, Rng& rng) {
  MatrixF m = random_matrix(out, in, rng);
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t i = 0; i < in; ++i) {
      if (pattern == SparsePattern::kBitmask && rng.uniform() >= kept) {
        m(o, i) = 0;
      }
    }
    if (pattern == SparsePattern::kBitmask) continue;
    for (std::size_t i = 0; i < in; i += 4) {
      const std::size_t a = rng.below(4), b = (a + 1 + rng.below(3)) % 4;
      m(o, i + a) = 0;
      m(o, i + b) = 0;
    }
  }
  return m;
}

}  // namespace llmpress::testing
