#include "compress/kernels/panel_weight.h"

#include <cassert>
#include <cmath>
#include <cstring>

#include "compress/core/float_formats.h"

namespace llmpress {
namespace {

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
  const std::size_t slot = w.slot(o / kPanelRows, group) + o % kPanelRows;
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
  const std::size_t slot = w.slot(o / kPanelRows, group) + o % kPanelRows;
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

std::array<float, kPlaceFactors> place_factors(const PanelWeight& w) {
  std::array<float, kPlaceFactors> factors{};
  const bool octets =
      w.format == PanelFormat::kByte || w.codes == PanelCodes::kMapped;
  const std::size_t bits = octets                             ? 8
                           : w.format == PanelFormat::kNibble ? 4
                                                              : 2;
  for (std::size_t j = 0; j < kPlaceFactors; ++j) {
    std::size_t place = octets ? j % 4 * 8 : 2 * j;
    if (bits == 4) place = j % 4 * 8 + (j % 8 < 4 ? 0 : 4);
    // The topmost one is shifted down.
    if (place + bits == 32) place = 0;
    factors[j] = std::ldexp(1.0f, -static_cast<int>(place));
  }
  return factors;
}

}  // namespace llmpress
