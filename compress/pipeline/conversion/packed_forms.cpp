#include "compress/pipeline/conversion/packed_forms.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "compress/core/float_formats.h"
#include "quantizers/ggml_rounding.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

constexpr std::size_t kBlock = 32;

// w = s (q - z) as blocks of d q + m, d = f16(s), m = -f16(s z): exact but for
// the rounding of m (and of s where it is no f16).
std::optional<GgmlWeight> affine_blocks(const GroupedIntWeight& w) {
  if (w.bits > 5 || w.group_size % kBlock != 0 || w.in % kBlock != 0 ||
      !w.g_idx.empty()) {
    return std::nullopt;
  }
  const GgmlType type = w.bits == 5 ? GgmlType::kQ5_1 : GgmlType::kQ4_1;
  GgmlWeight result{.out = w.out, .in = w.in, .type = type};
  result.blocks.resize(w.out * result.row_bytes());
  const Matrix<std::uint8_t> codes = unpack_rows(w);
  const std::size_t bytes = facts(type).bytes, count = w.in / kBlock;
  for (std::size_t k = 0; k < w.out * count; ++k) {
    const std::size_t o = k / count, b = k % count;
    const std::size_t g = o * w.groups() + b * kBlock / w.group_size;
    const float zero = w.symmetric ? static_cast<float>(1 << (w.bits - 1))
                       : w.float_zeros.empty() ? static_cast<float>(w.zeros[g])
                                               : w.float_zeros[g];
    GgmlBlock block{.d = f16_to_float(f16_from_float(w.scales[g]))};
    block.dmin = f16_to_float(f16_from_float(w.scales[g] * zero));
    std::ranges::copy(codes.row(o).subspan(b * kBlock, kBlock),
                      block.codes.begin());
    pack_ggml_block(type, block,
                    std::span(result.blocks).subspan(k * bytes, bytes));
  }
  return result;
}

PackedWeight on_grid(ConstMatrixView W, const WeightScheme& scheme,
                     ThreadPool& pool) {
  QuantizeConfig config;
  config.weights = scheme;
  return round_to_nearest(W, config, pool);
}

// Integers of so many bits in groups that divide the row.
WeightScheme integers(int bits, std::size_t in) {
  WeightScheme scheme{.bits = bits, .range = RangeSearch::kMse};
  const std::size_t group = bits == 8 ? 128 : kBlock;
  scheme.group_size = in % group == 0    ? static_cast<std::int64_t>(group)
                      : in % kBlock == 0 ? static_cast<std::int64_t>(kBlock)
                                         : -1;
  return scheme;
}

// sum (a - b)^2, b empty: zeros. In lanes, which compilers vectorize.
double squared_distance(std::span<const float> a, std::span<const float> b) {
  constexpr std::size_t kLanes = 8;
  double lanes[kLanes] = {};
  std::size_t i = 0;
  const auto add = [&](std::size_t at, std::size_t lane) {
    const double d = static_cast<double>(a[at]) -
                     (b.empty() ? 0.0 : static_cast<double>(b[at]));
    lanes[lane] += d * d;
  };
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) add(i + l, l);
  }
  for (; i < a.size(); ++i) add(i, 0);
  return std::accumulate(lanes, lanes + kLanes, 0.0);
}

}  // namespace

std::vector<PackedWeight> nearest_forms(const LinearWeights& linear,
                                        std::string_view format,
                                        ThreadPool& pool) {
  if (linear.input_hadamard > 0) return {};
  const PackedWeight& weight = linear.weight;
  if (format == "safetensors") {  // the numbers themselves
    if (std::holds_alternative<DenseWeight>(weight)) return {weight};
    return {make_dense(dequantize(weight).view(), DType::kF32)};
  }
  const bool few_bits = bits_per_weight(weight) < 6;
  std::vector<PackedWeight> forms;
  if (format == "gguf") {
    if (const auto* const ints = std::get_if<GroupedIntWeight>(&weight)) {
      if (auto blocks = affine_blocks(*ints)) forms.push_back(*blocks);
    }
    forms.push_back(round_to_fitting_ggml(dequantize(weight).view(),
                                          GgmlType::kQ8_0, pool));
    return forms;
  }
  const MatrixF W = dequantize(weight);
  if (format == "bitsandbytes") {
    forms.push_back(on_grid(
        W.view(),
        few_bits ? WeightScheme{.type = WeightType::kNf4, .group_size = 64}
                 : WeightScheme{.bits = 8, .group_size = -1, .symmetric = true},
        pool));
    return forms;
  }
  if (!few_bits) {
    forms.push_back(on_grid(W.view(), integers(8, W.cols()), pool));
  }
  forms.push_back(on_grid(W.view(), integers(4, W.cols()), pool));
  return forms;
}

double relative_difference(const PackedWeight& A, const PackedWeight& B,
                           ThreadPool& pool) {
  const std::size_t rows = rows_of(A), cols = cols_of(A);
  std::vector<double> differences(rows), norms(rows);
  pool.for_ranges(rows, 16, [&](std::size_t begin, std::size_t end) {
    std::vector<float> a(cols), b(cols);
    for (std::size_t o = begin; o < end; ++o) {
      dequantize_rows(A, o, {a, 1, cols});
      dequantize_rows(B, o, {b, 1, cols});
      differences[o] = squared_distance(a, b);
      norms[o] = squared_distance(b, {});
    }
  });
  const double difference =
      std::accumulate(differences.begin(), differences.end(), 0.0);
  const double norm = std::accumulate(norms.begin(), norms.end(), 0.0);
  if (difference == 0) return 0;
  return norm == 0 ? std::numeric_limits<double>::infinity()
                   : std::sqrt(difference / norm);
}

std::optional<PackedWeight> unpacked_from_blocks(const GgmlWeight& weight) {
  const int bits = weight.type == GgmlType::kQ4_0   ? 4
                   : weight.type == GgmlType::kQ5_0 ? 5
                   : weight.type == GgmlType::kQ8_0 ? 8
                                                    : 0;
  const bool mxfp4 = weight.type == GgmlType::kMxfp4;
  if (bits == 0 && !mxfp4) return std::nullopt;
  const GgmlTypeFacts& f = facts(weight.type);
  const std::size_t groups = weight.in / f.elements;
  Matrix<std::uint8_t> codes(weight.out, weight.in);
  std::vector<float> scales;
  std::vector<std::uint8_t> exponents;
  for (std::size_t o = 0; o < weight.out; ++o) {
    for (std::size_t g = 0; g < groups; ++g) {
      const GgmlBlock block = unpack_ggml_block(
          weight.type, weight.row(o).subspan(g * f.bytes, f.bytes));
      scales.push_back(block.d);
      exponents.push_back(static_cast<std::uint8_t>(block.scale_codes[0]));
      std::copy_n(block.codes.begin(), f.elements,
                  codes.row(o).subspan(g * f.elements).begin());
    }
  }
  if (!mxfp4) {
    return GroupedIntWeight{.out = weight.out,
                            .in = weight.in,
                            .bits = bits,
                            .group_size = f.elements,
                            .symmetric = true,
                            .scale_dtype = DType::kF16,
                            .codes = pack_rows(codes.view(), bits),
                            .scales = std::move(scales)};
  }
  MicroFp4Weight micro{.out = weight.out,
                       .in = weight.in,
                       .kind = MicroFp4Kind::kMxfp4,
                       .scales = std::move(exponents)};
  for (std::size_t i = 0; i < codes.size(); i += 2) {
    micro.codes.push_back(
        static_cast<std::uint8_t>(codes.data()[i] | codes.data()[i + 1] << 4));
  }
  return micro;
}

}  // namespace llmpress
