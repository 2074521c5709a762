#include "compress/kernels/panel_weight.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/ggml/ggml_block.h"
#include "compress/core/table4.h"

namespace llmpress {
namespace {

// --- the order of the inputs ------------------------------------------------

void add_blocks(std::vector<PanelBlock>& blocks, std::size_t begin,
                std::size_t end, std::size_t group, std::size_t longest) {
  for (std::size_t b = begin; b < end; b += longest) {
    blocks.push_back({static_cast<std::uint32_t>(b),
                      static_cast<std::uint32_t>(std::min(b + longest, end)),
                      static_cast<std::uint32_t>(group)});
  }
}

// Takes the inputs group by group; `group_of(i)` is in [0, w.groups). The
// places of `left_out` inputs (ascending) are padding.
template <class GroupOf>
void lay_out_inputs(PanelWeight& w, GroupOf group_of,
                    std::span<const std::uint32_t> left_out = {}) {
  const std::size_t step = facts(w.format).step_inputs;
  std::vector<std::vector<std::uint32_t>> members(w.groups);
  for (std::size_t i = 0; i < w.in; ++i) {
    const bool out = !left_out.empty() && left_out.front() == i;
    if (out) left_out = left_out.subspan(1);
    members[group_of(i)].push_back(out ? kPadding
                                       : static_cast<std::uint32_t>(i));
  }
  for (std::size_t g = 0; g < w.groups; ++g) {
    const std::size_t begin = w.gather.size();
    w.gather.insert(w.gather.end(), members[g].begin(), members[g].end());
    w.gather.resize(ceil_div(w.gather.size(), step) * step, kPadding);
    add_blocks(w.blocks, begin, w.gather.size(), g, kBlockDepth);
    add_blocks(w.int_blocks, begin, w.gather.size(), g, kIntBlockDepth);
  }
  w.depth = w.gather.size();
  bool identity = w.depth == w.in;
  for (std::size_t k = 0; identity && k < w.depth; ++k) {
    identity = w.gather[k] == k;
  }
  if (identity) w.gather.clear();
}

// --- codes ------------------------------------------------------------------

void allocate(PanelWeight& w) {
  const PanelFormatFacts f = facts(w.format);
  w.data = AlignedBuffer(w.panels() * kPanelRows * f.lane_bytes *
                         (w.depth / f.step_inputs));
}

// Where row o's lanes stand, counted in lanes.
struct LaneStream {
  std::size_t first, stride;
};
LaneStream lanes_of_row(const PanelWeight& w, std::size_t o) {
  const std::size_t steps = w.depth / facts(w.format).step_inputs;
  const std::size_t panel = o / kPanelRows;
  const bool grouped = panel / kGroupPanels < w.full_groups();
  const std::size_t side_by_side = grouped ? kGroupPanels : 1;
  const std::size_t first = panel / side_by_side * side_by_side;
  return {first * kPanelRows * steps + (o - first * kPanelRows),
          side_by_side * kPanelRows};
}

// Writes row o's lanes; `lane(step)` is the value of one lane.
template <class Lane, class LaneOf>
void write_row(PanelWeight& w, std::size_t o, LaneOf lane_of) {
  const std::size_t steps = w.depth / facts(w.format).step_inputs;
  const LaneStream lanes = lanes_of_row(w, o);
  std::byte* p = w.data.data() + lanes.first * sizeof(Lane);
  const std::size_t stride = lanes.stride;
  for (std::size_t s = 0; s < steps; ++s, p += stride * sizeof(Lane)) {
    const Lane lane = lane_of(s);
    std::memcpy(p, &lane, sizeof(Lane));
  }
}

// Row o of unsigned codes in gathered order, `padding` in the gaps.
void write_codes(PanelWeight& w, std::size_t o,
                 std::span<const std::uint8_t> codes, std::uint8_t padding,
                 std::vector<std::uint8_t>& ordered) {
  ordered.assign(w.depth, padding);
  for (std::size_t k = 0; k < w.depth; ++k) {
    const std::size_t i = w.gather.empty() ? k : w.gather[k];
    if (i != kPadding) ordered[k] = codes[i];
  }
  const std::uint8_t* const c = ordered.data();
  switch (w.format) {
    case PanelFormat::kByte:
      write_row<std::uint32_t>(w, o, [c](std::size_t s) {
        std::uint32_t lane = 0;
        for (std::size_t j = 0; j < 4; ++j) {
          lane |= std::uint32_t{c[4 * s + j]} << (8 * j);
        }
        return lane;
      });
      break;
    case PanelFormat::kNibble:
      write_row<std::uint32_t>(w, o, [c](std::size_t s) {
        std::uint32_t lane = 0;
        for (std::size_t j = 0; j < 4; ++j) {
          lane |= std::uint32_t{c[8 * s + j]} << (8 * j);
          lane |= std::uint32_t{c[8 * s + j + 4]} << (8 * j + 4);
        }
        return lane;
      });
      break;
    case PanelFormat::kCrumb:
      write_row<std::uint32_t>(w, o, [c](std::size_t s) {
        std::uint32_t lane = 0;
        for (std::size_t j = 0; j < 16; ++j) {
          lane |= std::uint32_t{c[16 * s + j]} << (2 * j);
        }
        return lane;
      });
      break;
    case PanelFormat::kE4M3:
    case PanelFormat::kE5M2:
      write_row<std::uint8_t>(w, o, [c](std::size_t s) { return c[s]; });
      break;
    case PanelFormat::kF32:
    case PanelFormat::kF16:
    case PanelFormat::kBF16:
      assert(false);
  }
}

// --- scales and zeros -------------------------------------------------------

// Of row o in `scales` and `zeros`.
std::size_t slot_of(const PanelWeight& w, std::size_t o, std::size_t group) {
  return (o / kPanelRows * w.groups + group) * kPanelRows + o % kPanelRows;
}

PanelScaleType scale_type_of(DType dtype) {
  if (dtype == DType::kF16) return PanelScaleType::kF16;
  if (dtype == DType::kBF16) return PanelScaleType::kBF16;
  return PanelScaleType::kF32;
}

template <class Element, class ValueOf>
void fill_slots(const PanelWeight& w, AlignedBuffer& buffer, ValueOf value_of) {
  buffer = AlignedBuffer(w.panels() * w.groups * kPanelRows * sizeof(Element));
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t g = 0; g < w.groups; ++g) {
      const Element e = value_of(o, g);
      std::memcpy(buffer.data() + slot_of(w, o, g) * sizeof(Element), &e,
                  sizeof(Element));
    }
  }
}

// `scale_of(o, g)` is exact in `type`, which is not one of the octet types.
template <class ScaleOf>
void fill_scales(PanelWeight& w, PanelScaleType type, ScaleOf scale_of) {
  w.scale_type = type;
  if (type == PanelScaleType::kF16) {
    fill_slots<std::uint16_t>(w, w.scales, [&](std::size_t o, std::size_t g) {
      return f16_from_float(scale_of(o, g));
    });
  } else if (type == PanelScaleType::kBF16) {
    fill_slots<std::uint16_t>(w, w.scales, [&](std::size_t o, std::size_t g) {
      return bf16_from_float(scale_of(o, g));
    });
  } else {
    assert(type == PanelScaleType::kF32);
    fill_slots<float>(w, w.scales, scale_of);
  }
}

// --- one function a packed type ---------------------------------------------

std::optional<PanelWeight> panels_of(const DenseWeight& dense) {
  PanelWeight w{.out = dense.out, .in = dense.in};
  w.format = dense.dtype == DType::kF16    ? PanelFormat::kF16
             : dense.dtype == DType::kBF16 ? PanelFormat::kBF16
                                           : PanelFormat::kF32;
  lay_out_inputs(w, [](std::size_t) { return std::size_t{0}; });
  allocate(w);
  for (std::size_t o = 0; o < w.out; ++o) {
    const std::byte* const row =
        dense.data.data() + o * bytes_of(dense.dtype, w.in);
    if (dense.dtype == DType::kF32) {
      write_row<std::uint32_t>(w, o, [row](std::size_t i) {
        std::uint32_t x = 0;
        std::memcpy(&x, row + i * sizeof x, sizeof x);
        return x;
      });
    } else {
      write_row<std::uint16_t>(w, o, [row](std::size_t i) {
        std::uint16_t x = 0;
        std::memcpy(&x, row + i * sizeof x, sizeof x);
        return x;
      });
    }
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
    lay_out_inputs(w, [&](std::size_t i) { return i / grouped.group_size; });
  } else {
    lay_out_inputs(
        w, [&](std::size_t i) { return std::size_t{grouped.g_idx[i]}; });
  }
  allocate(w);
  std::vector<std::uint8_t> codes(w.in), ordered;
  const std::size_t words = grouped.words_per_row();
  for (std::size_t o = 0; o < w.out; ++o) {
    unpack_codes(std::span(grouped.codes).subspan(o * words, words), bits,
                 codes);
    for (std::uint8_t& q : codes) q = static_cast<std::uint8_t>(q + shift);
    write_codes(w, o, codes, static_cast<std::uint8_t>(w.centre), ordered);
  }
  fill_scales(w, scale_type_of(grouped.scale_dtype),
              [&](std::size_t o, std::size_t g) {
                return grouped.scales[o * w.groups + g];
              });
  fill_int_zeros(w, grouped);
  return w;
}

std::optional<PanelWeight> panels_of(const Int8Weight& int8) {
  PanelWeight w{.out = int8.out, .in = int8.in};
  w.format = PanelFormat::kByte;
  w.centre = 128;
  lay_out_inputs(
      w, [](std::size_t) { return std::size_t{0}; }, int8.outlier_columns);
  allocate(w);
  const auto slot = [&](std::size_t o) {
    return int8.scales.size() == 1 ? 0 : o;
  };
  std::vector<std::uint8_t> codes(w.in), ordered;
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t i = 0; i < w.in; ++i) {
      codes[i] = static_cast<std::uint8_t>(int8.codes[o * w.in + i] + 128);
    }
    write_codes(w, o, codes, 128, ordered);
  }
  fill_scales(w, PanelScaleType::kF32,
              [&](std::size_t o, std::size_t) { return int8.scales[slot(o)]; });
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
  lay_out_inputs(w, [&](std::size_t i) { return i / fp8.block_cols; });
  allocate(w);
  std::vector<std::uint8_t> ordered;
  for (std::size_t o = 0; o < w.out; ++o) {
    write_codes(w, o, std::span(fp8.codes).subspan(o * w.in, w.in), 0, ordered);
  }
  const float unit = fp8.format == DType::kF8E4M3 ? kE4M3Unit : 1.0f;
  fill_scales(w, PanelScaleType::kF32, [&](std::size_t o, std::size_t g) {
    return fp8.scales[o / fp8.block_rows * w.groups + g] * unit;
  });
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
  lay_out_inputs(w, [&](std::size_t i) { return i / stretch; });
  allocate(w);
  std::vector<std::uint8_t> codes(w.in), ordered;
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t i = 0; i < w.in; ++i) {
      const std::size_t flat = o * w.in + i;
      const std::uint8_t octet = table4.codes[flat / 2];
      codes[i] =
          static_cast<std::uint8_t>(flat % 2 == 0 ? octet >> 4 : octet & 15);
    }
    write_codes(w, o, codes, 0, ordered);
  }
  fill_scales(w, PanelScaleType::kF32, [&](std::size_t o, std::size_t g) {
    return absmax_of(table4, (o * w.in + g * stretch) / table4.block_size);
  });
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
  lay_out_inputs(w, [&](std::size_t i) { return i / micro.group(); });
  allocate(w);
  const std::size_t octets = ceil_div(w.in, 2);
  std::vector<std::uint8_t> codes(w.in), ordered;
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t i = 0; i < w.in; ++i) {
      const std::uint8_t octet = micro.codes[o * octets + i / 2];
      codes[i] =
          static_cast<std::uint8_t>(i % 2 == 0 ? octet & 15 : octet >> 4);
    }
    write_codes(w, o, codes, 0, ordered);
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
    w.table[q] = static_cast<float>(value_of(
        l, static_cast<std::uint8_t>(q % period % std::min(l.levels, 16))));
  }
  lay_out_inputs(w, [&](std::size_t i) { return i / l.step; });
  allocate(w);
  std::vector<std::uint8_t> codes(w.in), ordered;
  std::vector<float> scales(w.out * w.groups), zeros(w.out * w.groups);
  const int shift = bytes ? w.centre - l.zero : 0;
  for (std::size_t o = 0; o < w.out; ++o) {
    const std::size_t at = o * w.groups;
    if (!take_apart(ggml, o, codes, std::span(scales).subspan(at, w.groups),
                    std::span(zeros).subspan(at, w.groups))) {
      return std::nullopt;
    }
    for (std::uint8_t& q : codes) q = static_cast<std::uint8_t>(q + shift);
    write_codes(w, o, codes, static_cast<std::uint8_t>(w.centre), ordered);
  }
  fill_scales(w, PanelScaleType::kF32, [&](std::size_t o, std::size_t g) {
    return scales[o * w.groups + g];
  });
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

PanelFormatFacts facts(PanelFormat format) {
  switch (format) {
    case PanelFormat::kF32:
      return {1, 4};
    case PanelFormat::kF16:
    case PanelFormat::kBF16:
      return {1, 2};
    case PanelFormat::kE4M3:
    case PanelFormat::kE5M2:
      return {1, 1};
    case PanelFormat::kByte:
      return {4, 4};
    case PanelFormat::kNibble:
      return {8, 4};
    case PanelFormat::kCrumb:
      return {16, 4};
  }
  return {1, 4};
}

std::size_t element_bytes(PanelScaleType type) {
  switch (type) {
    case PanelScaleType::kNone:
      return 0;
    case PanelScaleType::kF32:
      return 4;
    case PanelScaleType::kF16:
    case PanelScaleType::kBF16:
      return 2;
    case PanelScaleType::kE8M0:
    case PanelScaleType::kE4M3:
      return 1;
  }
  return 0;
}

std::size_t element_bytes(PanelZeroType type) {
  switch (type) {
    case PanelZeroType::kNone:
      return 0;
    case PanelZeroType::kI8:
      return 1;
    case PanelZeroType::kF32:
      return 4;
  }
  return 0;
}

const std::byte* PanelWeight::group_data(std::size_t group) const {
  const PanelFormatFacts f = facts(format);
  return data.data() + first_panel(group) * kPanelRows * f.lane_bytes *
                           (depth / f.step_inputs);
}

std::int32_t panel_code(const PanelWeight& w, std::size_t o, std::size_t k) {
  const std::size_t step = facts(w.format).step_inputs;
  const LaneStream lanes = lanes_of_row(w, o);
  std::uint32_t lane = 0;
  std::memcpy(
      &lane,
      w.data.data() + (lanes.first + k / step * lanes.stride) * sizeof lane,
      sizeof lane);
  const std::size_t j = k % step;
  if (w.format == PanelFormat::kByte) {
    return static_cast<std::int32_t>((lane >> (8 * j)) & 0xff) - w.centre;
  }
  assert(w.format == PanelFormat::kNibble);
  const std::size_t shift = j < 4 ? 8 * j : 8 * (j - 4) + 4;
  return static_cast<std::int32_t>((lane >> shift) & 15) - w.centre;
}

std::int32_t panel_zero(const PanelWeight& w, std::size_t o,
                        std::size_t group) {
  const std::size_t slot = slot_of(w, o, group);
  switch (w.zero_type) {
    case PanelZeroType::kNone:
      break;
    case PanelZeroType::kI8:
      return std::to_integer<std::int8_t>(w.zeros.data()[slot]);
    case PanelZeroType::kF32: {
      float z = 0;
      std::memcpy(&z, w.zeros.data() + slot * sizeof z, sizeof z);
      return static_cast<std::int32_t>(z);
    }
  }
  return 0;
}

float panel_scale(const PanelWeight& w, std::size_t o, std::size_t group) {
  const std::size_t slot = slot_of(w, o, group);
  if (w.scale_type == PanelScaleType::kF32) {
    float s = 0;
    std::memcpy(&s, w.scales.data() + slot * sizeof s, sizeof s);
    return s;
  }
  std::uint16_t h = 0;
  std::memcpy(&h, w.scales.data() + slot * sizeof h, sizeof h);
  assert(w.scale_type == PanelScaleType::kF16 ||
         w.scale_type == PanelScaleType::kBF16);
  return w.scale_type == PanelScaleType::kF16 ? f16_to_float(h)
                                              : bf16_to_float(h);
}

std::size_t PanelWeight::bytes() const {
  return data.size() + scales.size() + zeros.size() +
         gather.size() * sizeof(std::uint32_t);
}

std::optional<PanelWeight> make_panels(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return panels_of(w); }, weight);
}

}  // namespace llmpress
