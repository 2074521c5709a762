#include "compress/core/packed/sparse_weight.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/packed/dense_weight.h"
#include "compress/core/packed/packed_checker.h"

namespace llmpress {
namespace {

// A mask with the bits of 2:4 completed: where fewer than two of four values
// are not zero, the first zeros of the four are kept with them.
struct Mask {
  std::vector<std::uint8_t> bits;          // [out, ceil(in/8)]
  std::vector<std::uint64_t> row_offsets;  // [out + 1]
};

void complete_2of4(std::span<bool> keep, std::size_t o) {
  for (std::size_t i = 0; i < keep.size(); i += 4) {
    const auto four = keep.subspan(i, 4);
    auto kept = std::count(four.begin(), four.end(), true);
    if (kept > 2) {
      fail(ErrorCode::kInvalidArgument,
           "make_sparse: row {}, columns {}..{}: {} non-zeros, 2:4 allows 2", o,
           i, i + 3, kept);
    }
    for (bool& k : four) {
      if (kept == 2) break;
      if (!k) {
        k = true;
        ++kept;
      }
    }
  }
}

// `nonzero(o, i)`: whether W[o, i] must be kept.
template <class NonZero>
Mask make_mask(std::size_t out, std::size_t in, SparsePattern pattern,
               NonZero nonzero) {
  if (pattern == SparsePattern::k2of4 && in % 4 != 0) {
    fail(ErrorCode::kInvalidArgument,
         "make_sparse: {} columns are not a multiple of 4, as 2:4 needs", in);
  }
  const std::size_t octets = ceil_div(in, 8);
  Mask mask{.bits = std::vector<std::uint8_t>(out * octets),
            .row_offsets = {0}};
  const auto keep = std::make_unique<bool[]>(in);
  const std::span<bool> row(keep.get(), in);
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t i = 0; i < in; ++i) row[i] = nonzero(o, i);
    if (pattern == SparsePattern::k2of4) complete_2of4(row, o);
    std::uint64_t kept = 0;
    for (std::size_t i = 0; i < in; ++i) {
      if (!row[i]) continue;
      mask.bits[o * octets + i / 8] |= static_cast<std::uint8_t>(1u << (i % 8));
      ++kept;
    }
    mask.row_offsets.push_back(mask.row_offsets.back() + kept);
  }
  return mask;
}

// The kept elements of `all` [out, in] in row order.
template <class T>
std::vector<T> gather(const Mask& mask, MatrixView<const T> all) {
  const std::size_t octets = ceil_div(all.cols(), 8);
  std::vector<T> kept;
  kept.reserve(mask.row_offsets.back());
  for (std::size_t o = 0; o < all.rows(); ++o) {
    for (std::size_t i = 0; i < all.cols(); ++i) {
      if ((mask.bits[o * octets + i / 8] >> (i % 8)) & 1) {
        kept.push_back(all(o, i));
      }
    }
  }
  return kept;
}

void check_mask_row(const SparseWeight& w, std::size_t o,
                    const PackedChecker& c) {
  const auto row =
      std::span(w.mask).subspan(o * ceil_div(w.in, 8), ceil_div(w.in, 8));
  std::size_t kept = 0;
  for (const std::uint8_t octet : row) {
    kept += static_cast<std::size_t>(std::popcount(octet));
  }
  if (w.in % 8 != 0) {
    c.require(row.back() >> (w.in % 8) == 0, [&] {
      return formatted("mask row {} goes beyond the last column", o);
    });
  }
  c.require(w.row_offsets[o] <= w.row_offsets[o + 1] &&
                w.row_offsets[o + 1] - w.row_offsets[o] == kept,
            [&] {
              return formatted(
                  "row_offsets of row {} disagree with its mask of {}", o,
                  kept);
            });
  if (w.pattern != SparsePattern::k2of4) return;
  for (std::size_t i = 0; i < w.in; i += 4) {
    const unsigned four = (unsigned{row[i / 8]} >> (i % 8)) & 15u;
    c.require(std::popcount(four) == 2, [&] {
      return formatted("mask row {}, columns {}..{}: wanted exactly two kept",
                       o, i, i + 3);
    });
  }
}

}  // namespace

void decode_row(const SparseWeight& w, std::size_t o, std::span<float> row) {
  const std::size_t begin = w.row_offsets[o];
  const std::size_t kept = w.row_offsets[o + 1] - begin;
  std::vector<float> values(kept);
  if (w.bits == 0) {
    decode_floats(w.dtype,
                  std::span(w.data).subspan(bytes_of(w.dtype, begin),
                                            bytes_of(w.dtype, kept)),
                  values);
  } else {
    const auto codes = std::span(w.codes).subspan(begin, kept);
    std::copy(codes.begin(), codes.end(), values.begin());
  }
  const std::size_t octets = ceil_div(w.in, 8);
  const std::size_t groups = w.bits == 0 ? 0 : ceil_div(w.in, w.group_size);
  std::size_t k = 0;
  for (std::size_t i = 0; i < w.in; ++i) {
    if (((w.mask[o * octets + i / 8] >> (i % 8)) & 1) == 0) {
      row[i] = 0.0f;
    } else if (w.bits == 0) {
      row[i] = values[k++];
    } else {
      const std::size_t slot = o * groups + i / w.group_size;
      const float zero = static_cast<float>(
          w.zeros.empty() ? 1 << (w.bits - 1) : int{w.zeros[slot]});
      row[i] = w.scales[slot] * (values[k++] - zero);
    }
  }
}

// 2:4 needs no row offsets in a file: they are o * in / 2.
std::size_t stored_bytes(const SparseWeight& w) {
  const std::size_t offsets =
      w.pattern == SparsePattern::k2of4 ? 0 : w.out * sizeof(w.row_offsets[0]);
  const std::size_t codes =
      w.bits == 4 ? ceil_div(w.codes.size(), 2) : w.codes.size();
  return w.mask.size() + offsets + w.data.size() + codes +
         bytes_of(w.scale_dtype, w.scales.size()) +
         (w.zeros.empty()
              ? 0
              : packed_zero_bytes(w.out, ceil_div(w.in, w.group_size), w.bits));
}

std::string describe(const SparseWeight& w) {
  const std::string pattern =
      w.pattern == SparsePattern::k2of4 ? "2:4 " : "bitmask ";
  if (w.bits == 0) return pattern + word_of(w.dtype);
  return pattern + describe_groups(w.bits, w.group_size, w.in) +
         (w.zeros.empty() ? " sym" : " asym");
}

void check(const SparseWeight& w, const PackedChecker& c) {
  c.require(w.pattern != SparsePattern::k2of4 || w.in % 4 == 0,
            [&] { return formatted("2:4 with {} columns", w.in); });
  c.size("mask", w.mask.size(), c.mul(w.out, ceil_div(w.in, 8)));
  c.size("row_offsets", w.row_offsets.size(), w.out + 1);
  c.require(w.row_offsets[0] == 0, "row_offsets do not begin at 0");
  for (std::size_t o = 0; o < w.out; ++o) check_mask_row(w, o, c);
  const std::size_t kept = w.row_offsets.back();
  if (w.bits == 0) {
    c.plain_dtype(w.dtype);
    c.size("data", w.data.size(), bytes_of(w.dtype, kept));
    c.size("codes", w.codes.size(), 0);
    c.size("scales", w.scales.size(), 0);
    c.size("zeros", w.zeros.size(), 0);
    return;
  }
  c.require(w.bits == 4 || w.bits == 8,
            [&] { return formatted("bits {}, wanted 0, 4 or 8", w.bits); });
  c.group_size(w.group_size, w.in);
  const std::size_t slots = w.out * ceil_div(w.in, w.group_size);
  c.size("data", w.data.size(), 0);
  c.size("codes", w.codes.size(), kept);
  c.size("scales", w.scales.size(), slots);
  c.size("zeros", w.zeros.size(), w.zeros.empty() ? 0 : slots);
  c.codes("codes", w.codes, w.bits);
  c.codes("zeros", w.zeros, w.bits);
  c.scales("scales", w.scales, w.scale_dtype);
}

SparseWeight make_sparse(ConstMatrixView W, SparsePattern pattern,
                         DType dtype) {
  const Mask mask =
      make_mask(W.rows(), W.cols(), pattern,
                [&](std::size_t o, std::size_t i) { return W(o, i) != 0.0f; });
  const std::vector<float> values = gather(mask, W);
  SparseWeight s{.out = W.rows(),
                 .in = W.cols(),
                 .pattern = pattern,
                 .mask = mask.bits,
                 .row_offsets = mask.row_offsets,
                 .dtype = dtype};
  s.data.resize(bytes_of(dtype, values.size()));
  encode_fitting(dtype, values, s.data);
  return s;
}

SparseWeight make_sparse(const GroupedIntWeight& weight,
                         SparsePattern pattern) {
  if (weight.bits != 4 && weight.bits != 8) {
    fail(ErrorCode::kInvalidArgument,
         "make_sparse: codes of {} bits, sparse weights have 4 or 8",
         weight.bits);
  }
  if (!weight.g_idx.empty() || !weight.float_zeros.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "make_sparse: a sparse weight has neither g_idx nor real "
                "zeros");
  }
  const Matrix<std::uint8_t> codes = unpack_rows(weight);
  const std::size_t groups = weight.groups();
  const Mask mask = make_mask(
      weight.out, weight.in, pattern, [&](std::size_t o, std::size_t i) {
        const std::size_t slot = o * groups + i / weight.group_size;
        const int zero = weight.zeros.empty() ? 1 << (weight.bits - 1)
                                              : int{weight.zeros[slot]};
        return codes(o, i) != zero;
      });
  return {.out = weight.out,
          .in = weight.in,
          .pattern = pattern,
          .mask = mask.bits,
          .row_offsets = mask.row_offsets,
          .bits = weight.bits,
          .group_size = weight.group_size,
          .scale_dtype = weight.scale_dtype,
          .codes = gather(mask, codes.view()),
          .scales = weight.scales,
          .zeros = weight.zeros};
}

}  // namespace llmpress
