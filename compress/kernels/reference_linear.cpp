#include "compress/kernels/reference_linear.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "compress/core/bit_packing.h"
#include "compress/kernels/panel_weight.h"

namespace llmpress {
namespace {

// One row of a weight with integer codes: w[i] = scale[g] (code[i] - zero[g]),
// g = group[i]. Columns that are stored apart have group kApart.
struct IntRow {
  static constexpr std::uint32_t kApart = UINT32_MAX;
  std::vector<std::int32_t> codes{};
  std::vector<std::uint32_t> group{};
  std::vector<float> scales{};
  std::vector<std::int32_t> zeros{};
};

IntRow decode_int_row(const GroupedIntWeight& w, std::size_t o) {
  const std::size_t words = w.words_per_row(), groups = w.groups();
  std::vector<std::uint8_t> codes(w.in);
  unpack_codes(std::span(w.codes).subspan(o * words, words), w.bits, codes);
  IntRow row;
  row.codes.assign(codes.begin(), codes.end());
  for (std::size_t i = 0; i < w.in; ++i) {
    row.group.push_back(w.g_idx.empty()
                            ? static_cast<std::uint32_t>(i / w.group_size)
                            : w.g_idx[i]);
  }
  for (std::size_t g = 0; g < groups; ++g) {
    row.scales.push_back(w.scales[o * groups + g]);
    row.zeros.push_back(w.zeros.empty() ? 1 << (w.bits - 1)
                                        : w.zeros[o * groups + g]);
  }
  return row;
}

IntRow decode_int_row(const Int8Weight& w, std::size_t o) {
  const std::size_t slot = w.scales.size() == 1 ? 0 : o;
  IntRow row;
  for (std::size_t i = 0; i < w.in; ++i) {
    row.codes.push_back(w.codes[o * w.in + i]);
  }
  row.group.assign(w.in, 0);
  for (const std::uint32_t c : w.outlier_columns) row.group[c] = IntRow::kApart;
  row.scales = {w.scales[slot]};
  row.zeros = {w.zeros.empty() ? 0 : w.zeros[slot]};
  return row;
}

// sum over groups of s * float(integer sum), in runs of kIntBlockDepth places.
float multiply_int_row(const IntRow& row, std::span<const std::int8_t> x,
                       std::int32_t x_zero) {
  float total = 0;
  for (std::size_t g = 0; g < row.scales.size(); ++g) {
    std::int64_t sum = 0;
    std::size_t places = 0;
    const auto flush = [&] {
      total = std::fma(row.scales[g], static_cast<float>(sum), total);
      sum = 0;
      places = 0;
    };
    for (std::size_t i = 0; i < x.size(); ++i) {
      // A column stored apart keeps its place in the run.
      const bool apart = row.group[i] == IntRow::kApart;
      if (!apart && row.group[i] != g) continue;
      if (places == kIntBlockDepth) flush();
      if (!apart) {
        sum += std::int64_t{x[i] - x_zero} * (row.codes[i] - row.zeros[g]);
      }
      ++places;
    }
    flush();
  }
  return total;
}

}  // namespace

void multiply_reference(const PackedWeight& weight, ConstMatrixView X,
                        MatrixView<float> Y, ThreadPool& pool) {
  pool.for_ranges(Y.cols(), 16, [&](std::size_t begin, std::size_t end) {
    MatrixF w(1, X.cols());
    for (std::size_t o = begin; o < end; ++o) {
      dequantize_rows(weight, o, w.view());
      for (std::size_t t = 0; t < X.rows(); ++t) {
        const auto x = X.row(t);
        double sum = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
          sum += double{x[i]} * double{w(0, i)};
        }
        Y(t, o) = static_cast<float>(sum);
      }
    }
  });
}

void multiply_reference_int(const PackedWeight& weight, const IntActivations& X,
                            MatrixView<float> Y, ThreadPool& pool) {
  const MatrixView<const std::int8_t> codes(X.codes, X.tokens, X.in);
  pool.for_ranges(Y.cols(), 16, [&](std::size_t begin, std::size_t end) {
    for (std::size_t o = begin; o < end; ++o) {
      const auto* const grouped = std::get_if<GroupedIntWeight>(&weight);
      const IntRow row = grouped != nullptr
                             ? decode_int_row(*grouped, o)
                             : decode_int_row(std::get<Int8Weight>(weight), o);
      for (std::size_t t = 0; t < X.tokens; ++t) {
        Y(t, o) = multiply_int_row(row, codes.row(t), X.zeros[t]) * X.scales[t];
      }
    }
  });
}

}  // namespace llmpress
