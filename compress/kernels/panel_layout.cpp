#include "compress/kernels/panel_layout.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/vector_clones.h"

namespace llmpress {
namespace {

void add_blocks(std::vector<PanelBlock>& blocks, std::size_t begin,
                std::size_t end, std::size_t group, std::size_t longest) {
  for (std::size_t b = begin; b < end; b += longest) {
    blocks.push_back({static_cast<std::uint32_t>(b),
                      static_cast<std::uint32_t>(std::min(b + longest, end)),
                      static_cast<std::uint32_t>(group)});
  }
}

// Eight codes below 16 as a lane of kNibble.
std::uint32_t nibbles_of(const std::uint8_t* codes) {
  std::uint64_t octets = 0;
  std::memcpy(&octets, codes, sizeof octets);
  return static_cast<std::uint32_t>(octets) |
         static_cast<std::uint32_t>(octets >> 32) << 4;
}

// The same of eight codes side by side, the first one lowest: those of a half
// are spread over octets.
std::uint32_t nibbles_of(std::uint32_t word) {
  const auto spread = [](std::uint32_t four) {
    four = (four | four << 8) & 0x00ff00ffu;
    return (four | four << 4) & 0x0f0f0f0fu;
  };
  return spread(word & 0xffffu) | spread(word >> 16) << 4;
}

LLMPRESS_VECTOR_CLONES
void spread_words(const std::byte* from, std::size_t words, bool first_low,
                  std::byte* to) {
  constexpr std::uint32_t kLow = 0x0f0f0f0f;
  for (std::size_t s = 0; s < words; ++s) {
    std::uint32_t word = 0;
    std::memcpy(&word, from + s * sizeof word, sizeof word);
    if (!first_low) word = (word >> 4 & kLow) | (word & kLow) << 4;
    const std::uint32_t lane = nibbles_of(word);
    std::memcpy(to + s * sizeof lane, &lane, sizeof lane);
  }
}

std::uint32_t crumbs_of(const std::uint8_t* codes) {
  std::uint32_t lane = 0;
  for (std::size_t j = 0; j < 16; ++j) {
    lane |= std::uint32_t{codes[j]} << (2 * j);
  }
  return lane;
}

// Lane s of row r to place s * stride + r.
template <class Lane>
void interleave(const std::byte* rows, std::size_t steps, std::byte* to,
                std::size_t stride) {
  for (std::size_t s = 0; s < steps; ++s) {
    for (std::size_t r = 0; r < kPanelRows; ++r) {
      std::memcpy(to + (s * stride + r) * sizeof(Lane),
                  rows + (r * steps + s) * sizeof(Lane), sizeof(Lane));
    }
  }
}

// Tries v = least + unit * n with n in [0, most]; the table's own values stay
// exact.
bool map_exactly(PanelWeight& w, std::size_t codes, float unit, int most) {
  for (std::size_t q = 0; q < codes; ++q) {
    const float n = (w.table[q] - w.least) / unit;
    if (n != std::nearbyint(n) || n > static_cast<float>(most)) return false;
    w.map_high[q] = static_cast<std::uint8_t>(n);
  }
  w.unit = unit;
  return true;
}

void map_in_two(PanelWeight& w, std::size_t codes, float most) {
  constexpr int kBase = 1 << kPartBits;
  constexpr int kLargest = kBase * kSmallOctet + kSmallOctet;
  const bool whole = std::all_of(w.table, w.table + codes, [&](float v) {
    return v - w.least == std::nearbyint(v - w.least) &&
           v - w.least <= kLargest;
  });
  w.unit = whole ? 1.0f : (most - w.least) / kLargest;
  for (std::size_t q = 0; q < codes; ++q) {
    const int n = static_cast<int>(std::lround(
        static_cast<double>(w.table[q] - w.least) / double{w.unit}));
    w.map_high[q] = static_cast<std::uint8_t>(n / kBase);
    w.map_low[q] = static_cast<std::uint8_t>(n % kBase);
  }
}

}  // namespace

void classify_codes(PanelWeight& w) {
  if (w.format == PanelFormat::kByte) {
    w.codes = PanelCodes::kPlain;
    w.least = static_cast<float>(-w.centre);
    return;
  }
  const bool nibble = w.format == PanelFormat::kNibble;
  if (!nibble && w.format != PanelFormat::kCrumb) return;
  const std::size_t codes = nibble ? 16 : 4;
  const auto [least, most] = std::minmax_element(w.table, w.table + codes);
  w.least = *least;
  if (map_exactly(w, codes, 1, 15)) {
    bool plain = true;
    for (std::size_t q = 0; q < codes; ++q) plain &= w.map_high[q] == q;
    w.codes = plain ? PanelCodes::kPlain : PanelCodes::kMapped;
  } else if (map_exactly(w, codes, 0.5f, kSmallOctet)) {
    w.codes = PanelCodes::kMapped;
  } else {
    w.codes = PanelCodes::kMappedPair;
    map_in_two(w, codes, *most);
  }
}

void lay_out_inputs(PanelWeight& w, std::span<const std::uint32_t> group_of,
                    std::span<const std::uint32_t> left_out) {
  assert(group_of.size() == w.in);
  const PanelFormatFacts format = facts(w.format);
  std::vector<std::vector<std::uint32_t>> members(w.groups);
  for (std::size_t i = 0; i < w.in; ++i) {
    const bool out = !left_out.empty() && left_out.front() == i;
    if (out) left_out = left_out.subspan(1);
    members[group_of[i]].push_back(out ? kPadding
                                       : static_cast<std::uint32_t>(i));
  }
  for (std::size_t g = 0; g < w.groups; ++g) {
    const std::size_t begin = w.gather.size();
    w.gather.insert(w.gather.end(), members[g].begin(), members[g].end());
    w.gather.resize(
        ceil_div(w.gather.size(), format.step_inputs) * format.step_inputs,
        kPadding);
    add_blocks(w.blocks, begin, w.gather.size(), g, kBlockDepth);
    add_blocks(w.int_blocks, begin, w.gather.size(), g, kIntBlockDepth);
  }
  w.depth = w.gather.size();
  bool identity = w.depth == w.in;
  for (std::size_t k = 0; identity && k < w.depth; ++k) {
    identity = w.gather[k] == k;
  }
  if (identity) w.gather.clear();
  w.data = AlignedBuffer::unset(w.panels() * kPanelRows * format.lane_bytes *
                                (w.depth / format.step_inputs));
}

void lay_out_inputs(PanelWeight& w, std::size_t group_size,
                    std::span<const std::uint32_t> left_out) {
  std::vector<std::uint32_t> group_of(w.in);
  for (std::size_t i = 0; i < w.in; ++i) {
    group_of[i] = static_cast<std::uint32_t>(i / group_size);
  }
  lay_out_inputs(w, group_of, left_out);
}

PanelRowWriter::PanelRowWriter(PanelWeight& w)
    : w_(w),
      steps_(w.depth / facts(w.format).step_inputs),
      row_bytes_(steps_ * facts(w.format).lane_bytes),
      panel_(kPanelRows * row_bytes_) {}

std::byte* PanelRowWriter::row() {
  return panel_.data() + next_ % kPanelRows * row_bytes_;
}

void PanelRowWriter::end_row() {
  ++next_;
  if (next_ % kPanelRows == 0 || next_ == w_.out) write_panel();
}

void PanelRowWriter::write_panel() {
  const std::size_t panel = (next_ - 1) / kPanelRows;
  if (next_ % kPanelRows != 0) {  // rows that do not exist
    std::fill(panel_.begin() +
                  static_cast<std::ptrdiff_t>(next_ % kPanelRows * row_bytes_),
              panel_.end(), std::byte{0});
  }
  const std::size_t lane = facts(w_.format).lane_bytes;
  const bool grouped = panel / kGroupPanels < w_.full_groups();
  const std::size_t side_by_side = grouped ? kGroupPanels : 1;
  const std::size_t first = panel / side_by_side * side_by_side;
  std::byte* const to =
      w_.data.data() + (first * steps_ + (panel - first)) * kPanelRows * lane;
  const std::size_t stride = side_by_side * kPanelRows;
  if (lane == 1) interleave<std::uint8_t>(panel_.data(), steps_, to, stride);
  if (lane == 2) interleave<std::uint16_t>(panel_.data(), steps_, to, stride);
  if (lane == 4) interleave<std::uint32_t>(panel_.data(), steps_, to, stride);
}

void PanelRowWriter::add_codes(std::span<const std::uint8_t> codes,
                               std::uint8_t padding) {
  const std::uint8_t* c = codes.data();
  if (!w_.gather.empty()) {
    ordered_.assign(w_.depth, padding);
    for (std::size_t k = 0; k < w_.depth; ++k) {
      if (w_.gather[k] != kPadding) ordered_[k] = codes[w_.gather[k]];
    }
    c = ordered_.data();
  }
  std::byte* const to = row();
  switch (w_.format) {
    case PanelFormat::kNibble:
      for (std::size_t s = 0; s < steps_; ++s) {
        const std::uint32_t lane = nibbles_of(c + 8 * s);
        std::memcpy(to + s * sizeof lane, &lane, sizeof lane);
      }
      break;
    case PanelFormat::kCrumb:
      for (std::size_t s = 0; s < steps_; ++s) {
        const std::uint32_t lane = crumbs_of(c + 16 * s);
        std::memcpy(to + s * sizeof lane, &lane, sizeof lane);
      }
      break;
    case PanelFormat::kByte:
    case PanelFormat::kE4M3:
    case PanelFormat::kE5M2:
      std::memcpy(to, c, row_bytes_);
      break;
    case PanelFormat::kF32:
    case PanelFormat::kF16:
    case PanelFormat::kBF16:
      assert(false);
  }
  end_row();
}

bool PanelRowWriter::takes_pairs() const {
  return w_.format == PanelFormat::kNibble && w_.gather.empty();
}

void PanelRowWriter::add_pairs(std::span<const std::byte> octets,
                               bool first_low) {
  assert(takes_pairs() && octets.size() == row_bytes_);
  spread_words(octets.data(), steps_, first_low, row());
  end_row();
}

void PanelRowWriter::add_numbers(std::span<const std::byte> numbers) {
  assert(w_.gather.empty() && numbers.size() == row_bytes_);
  std::memcpy(row(), numbers.data(), row_bytes_);
  end_row();
}

PanelScaleType panel_scale_type(DType dtype) {
  if (dtype == DType::kF16) return PanelScaleType::kF16;
  if (dtype == DType::kBF16) return PanelScaleType::kBF16;
  return PanelScaleType::kF32;
}

void fill_scales(PanelWeight& w, PanelScaleType type,
                 std::span<const float> scales) {
  assert(scales.size() == w.out * w.groups);
  w.scale_type = type;
  const auto scale_of = [&](std::size_t o, std::size_t g) {
    return scales[o * w.groups + g];
  };
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

}  // namespace llmpress
