// make_sparse of packed_weight.h.
#include <algorithm>
#include <memory>
#include <span>

#include "compress/core/checked.h"
#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/packed_weight.h"

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

}  // namespace

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
