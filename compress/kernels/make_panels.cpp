// One function a packed type.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/ggml/ggml_block.h"
#include "compress/core/table4.h"
#include "compress/kernels/panel_layout.h"

namespace llmpress {
namespace {

std::optional<PanelWeight> panels_of(const DenseWeight& dense) {
  PanelWeight w{.out = dense.out, .in = dense.in};
  w.format = dense.dtype == DType::kF16    ? PanelFormat::kF16
             : dense.dtype == DType::kBF16 ? PanelFormat::kBF16
                                           : PanelFormat::kF32;
  lay_out_inputs(w, w.in);
  PanelRowWriter writer(w);
  const std::size_t row_bytes = bytes_of(dense.dtype, w.in);
  for (std::size_t o = 0; o < w.out; ++o) {
    writer.add_numbers(std::span(dense.data).subspan(o * row_bytes, row_bytes));
  }
  return w;
}

// Zeros and codes are stored less 2^(bits-1), the centre of the codes.
void fill_int_zeros(PanelWeight& w, const GroupedIntWeight& grouped) {
  const int centre = 1 << (grouped.bits - 1);
  if (!grouped.float_zeros.empty()) {
    w.zero_type = PanelZeroType::kF32;
    fill_slots<float>(w, w.zeros, [&](std::size_t o, std::size_t g) {
      return grouped.float_zeros[o * w.groups + g] - static_cast<float>(centre);
    });
  } else if (!grouped.zeros.empty()) {
    w.zero_type = PanelZeroType::kI8;
    fill_slots<std::int8_t>(w, w.zeros, [&](std::size_t o, std::size_t g) {
      return static_cast<std::int8_t>(grouped.zeros[o * w.groups + g] - centre);
    });
  }
}

std::optional<PanelWeight> panels_of(const GroupedIntWeight& grouped) {
  PanelWeight w{.out = grouped.out, .in = grouped.in};
  w.groups = grouped.groups();
  const int bits = grouped.bits;
  w.format = bits == 2   ? PanelFormat::kCrumb
             : bits <= 4 ? PanelFormat::kNibble
                         : PanelFormat::kByte;
  // What is added to a code on its way into the layout.
  w.centre = w.format == PanelFormat::kByte ? 128 : 1 << (bits - 1);
  const int shift = w.centre - (1 << (bits - 1));
  for (int q = 0; q < 16; ++q) {
    w.table[q] = static_cast<float>(
        w.format == PanelFormat::kCrumb ? q % 4 - w.centre : q - w.centre);
  }
  if (grouped.g_idx.empty()) {
    lay_out_inputs(w, grouped.group_size);
  } else {
    lay_out_inputs(w, grouped.g_idx);
  }
  PanelRowWriter writer(w);
  std::vector<std::uint8_t> codes(w.in);
  const std::size_t words = grouped.words_per_row();
  for (std::size_t o = 0; o < w.out; ++o) {
    const auto row = std::span(grouped.codes).subspan(o * words, words);
    if (bits == 4 && writer.takes_pairs()) {
      writer.add_pairs(std::as_bytes(row), true);
      continue;
    }
    unpack_codes(row, bits, codes);
    if (shift != 0) {
      for (std::uint8_t& q : codes) q = static_cast<std::uint8_t>(q + shift);
    }
    writer.add_codes(codes, static_cast<std::uint8_t>(w.centre));
  }
  fill_scales(w, panel_scale_type(grouped.scale_dtype), grouped.scales);
  fill_int_zeros(w, grouped);
  return w;
}

std::optional<PanelWeight> panels_of(const Int8Weight& int8) {
  PanelWeight w{.out = int8.out, .in = int8.in};
  w.format = PanelFormat::kByte;
  w.centre = 128;
  lay_out_inputs(w, w.in, int8.outlier_columns);
  PanelRowWriter writer(w);
  const auto slot = [&](std::size_t o) {
    return int8.scales.size() == 1 ? 0 : o;
  };
  std::vector<std::uint8_t> codes(w.in);
  std::vector<float> scales(w.out);
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t i = 0; i < w.in; ++i) {
      codes[i] = static_cast<std::uint8_t>(int8.codes[o * w.in + i] + 128);
    }
    writer.add_codes(codes, 128);
    scales[o] = int8.scales[slot(o)];
  }
  fill_scales(w, PanelScaleType::kF32, scales);
  if (!int8.zeros.empty()) {
    w.zero_type = PanelZeroType::kF32;
    fill_slots<float>(w, w.zeros, [&](std::size_t o, std::size_t) {
      return static_cast<float>(int8.zeros[slot(o)]);
    });
  }
  return w;
}

// An E4M3 code shifted into binary16's place is the value / 2^8, which is what
// the kernels read; the scales make up for it.
constexpr float kE4M3Unit = 256.0f;

bool all_numbers(const Fp8Weight& fp8) {
  const bool e4m3 = fp8.format == DType::kF8E4M3;
  return std::all_of(fp8.codes.begin(), fp8.codes.end(), [=](std::uint8_t c) {
    return (c & 0x7f) < (e4m3 ? 0x7f : 0x7c);
  });
}

std::optional<PanelWeight> panels_of(const Fp8Weight& fp8) {
  if (!all_numbers(fp8)) return std::nullopt;
  PanelWeight w{.out = fp8.out, .in = fp8.in};
  w.format =
      fp8.format == DType::kF8E4M3 ? PanelFormat::kE4M3 : PanelFormat::kE5M2;
  w.groups = ceil_div(w.in, fp8.block_cols);
  lay_out_inputs(w, fp8.block_cols);
  PanelRowWriter writer(w);
  const float unit = fp8.format == DType::kF8E4M3 ? kE4M3Unit : 1.0f;
  std::vector<float> scales;
  for (std::size_t o = 0; o < w.out; ++o) {
    writer.add_codes(std::span(fp8.codes).subspan(o * w.in, w.in), 0);
    for (std::size_t g = 0; g < w.groups; ++g) {
      scales.push_back(fp8.scales[o / fp8.block_rows * w.groups + g] * unit);
    }
  }
  fill_scales(w, PanelScaleType::kF32, scales);
  return w;
}

std::optional<PanelWeight> panels_of(const Table4Weight& table4) {
  // Blocks run over the flattened weight; cut at their greatest common divisor
  // with the row, they lie in rows.
  const std::size_t stretch = std::gcd(table4.in, table4.block_size);
  if (stretch < facts(PanelFormat::kNibble).step_inputs) return std::nullopt;
  PanelWeight w{.out = table4.out, .in = table4.in};
  w.format = PanelFormat::kNibble;
  w.groups = w.in / stretch;
  const auto values = table4_values(table4.kind);
  std::copy(values.begin(), values.end(), w.table);
  lay_out_inputs(w, stretch);
  PanelRowWriter writer(w);
  std::vector<std::uint8_t> codes(w.in);
  std::vector<float> scales;
  for (std::size_t o = 0; o < w.out; ++o) {
    if (writer.takes_pairs()) {
      writer.add_pairs(
          std::as_bytes(
              std::span(table4.codes).subspan(o * w.in / 2, w.in / 2)),
          false);
    } else {
      for (std::size_t i = 0; i < w.in; ++i) {
        const std::size_t flat = o * w.in + i;
        const std::uint8_t octet = table4.codes[flat / 2];
        codes[i] =
            static_cast<std::uint8_t>(flat % 2 == 0 ? octet >> 4 : octet & 15);
      }
      writer.add_codes(codes, 0);
    }
    for (std::size_t g = 0; g < w.groups; ++g) {
      scales.push_back(
          absmax_of(table4, (o * w.in + g * stretch) / table4.block_size));
    }
  }
  fill_scales(w, PanelScaleType::kF32, scales);
  return w;
}

std::optional<PanelWeight> panels_of(const MicroFp4Weight& micro) {
  const bool mxfp4 = micro.kind == MicroFp4Kind::kMxfp4;
  const std::uint8_t magnitude = mxfp4 ? 0xff : 0x7f;
  for (const std::uint8_t s : micro.scales) {
    if ((s & magnitude) == magnitude) return std::nullopt;  // NaN
  }
  PanelWeight w{.out = micro.out, .in = micro.in};
  w.format = PanelFormat::kNibble;
  w.groups = ceil_div(w.in, micro.group());
  for (int q = 0; q < 16; ++q) {
    w.table[q] = e2m1_to_float(static_cast<std::uint8_t>(q));
  }
  lay_out_inputs(w, micro.group());
  PanelRowWriter writer(w);
  const std::size_t octets = ceil_div(w.in, 2);
  std::vector<std::uint8_t> codes(w.in);
  for (std::size_t o = 0; o < w.out; ++o) {
    if (writer.takes_pairs()) {
      writer.add_pairs(
          std::as_bytes(std::span(micro.codes).subspan(o * octets, octets)),
          true);
      continue;
    }
    for (std::size_t i = 0; i < w.in; ++i) {
      const std::uint8_t octet = micro.codes[o * octets + i / 2];
      codes[i] =
          static_cast<std::uint8_t>(i % 2 == 0 ? octet & 15 : octet >> 4);
    }
    writer.add_codes(codes, 0);
  }
  w.scale_type = mxfp4 ? PanelScaleType::kE8M0 : PanelScaleType::kE4M3;
  fill_slots<std::uint8_t>(w, w.scales, [&](std::size_t o, std::size_t g) {
    return micro.scales[o * w.groups + g];
  });
  if (!mxfp4) w.final_scale = kE4M3Unit / micro.global_scale;
  return w;
}

// Codes of one row, and the scales and zeros of its sub-blocks: a zero is
// minimum / scale. False if a scale of 0 has a minimum.
bool take_apart(const GgmlWeight& ggml, std::size_t o,
                std::span<std::uint8_t> codes, std::span<float> scales,
                std::span<float> zeros) {
  const GgmlTypeFacts& f = facts(ggml.type);
  const GgmlLayout& l = layout(ggml.type);
  const auto row = ggml.row(o);
  for (std::size_t b = 0; b < ggml.in / f.elements; ++b) {
    const GgmlBlock block =
        unpack_ggml_block(ggml.type, row.subspan(b * f.bytes, f.bytes));
    for (std::size_t i = 0; i < f.elements; ++i) {
      codes[b * f.elements + i] = block.codes[i];
    }
    for (std::size_t j = 0; j < f.elements / l.step; ++j) {
      const std::size_t g = b * (f.elements / l.step) + j;
      const float minimum = minimum_of(l, block, j);
      scales[g] = scale_of(l, block, j);
      zeros[g] = minimum == 0 ? 0.0f : minimum / scales[g];
      if (!std::isfinite(zeros[g])) return false;
    }
  }
  return true;
}

std::optional<PanelWeight> panels_of(const GgmlWeight& ggml) {
  const GgmlLayout& l = layout(ggml.type);
  PanelWeight w{.out = ggml.out, .in = ggml.in};
  w.groups = w.in / l.step;
  w.format = l.levels <= 4    ? PanelFormat::kCrumb
             : l.levels <= 16 ? PanelFormat::kNibble
                              : PanelFormat::kByte;
  const bool bytes = w.format == PanelFormat::kByte;
  w.centre = bytes ? 128 : 0;
  // Crumbs are looked up with the bits above them still there.
  const int period = w.format == PanelFormat::kCrumb ? 4 : 16;
  for (int q = 0; q < 16; ++q) {
    const int code = q % period;
    const bool beyond = l.table != nullptr && code >= l.levels;
    w.table[q] = static_cast<float>(
        value_of(l, static_cast<std::uint8_t>(beyond ? 0 : code)));
  }
  lay_out_inputs(w, l.step);
  PanelRowWriter writer(w);
  std::vector<std::uint8_t> codes(w.in);
  std::vector<float> scales(w.out * w.groups), zeros(w.out * w.groups);
  const int shift = bytes ? w.centre - l.zero : 0;
  for (std::size_t o = 0; o < w.out; ++o) {
    const std::size_t at = o * w.groups;
    if (!take_apart(ggml, o, codes, std::span(scales).subspan(at, w.groups),
                    std::span(zeros).subspan(at, w.groups))) {
      return std::nullopt;
    }
    for (std::uint8_t& q : codes) q = static_cast<std::uint8_t>(q + shift);
    writer.add_codes(codes, static_cast<std::uint8_t>(w.centre));
  }
  fill_scales(w, PanelScaleType::kF32, scales);
  if (l.minima) {
    w.zero_type = PanelZeroType::kF32;
    fill_slots<float>(w, w.zeros, [&](std::size_t o, std::size_t g) {
      return zeros[o * w.groups + g];
    });
  }
  return w;
}

std::optional<PanelWeight> panels_of(const SparseWeight&) {
  return std::nullopt;
}

}  // namespace

std::optional<PanelWeight> make_panels(const PackedWeight& weight) {
  auto panels = std::visit([](const auto& w) { return panels_of(w); }, weight);
  if (panels) classify_codes(*panels);
  return panels;
}

}  // namespace llmpress
