// A weight W [out, in] laid out for vectors: the rows are cut into panels of
// kPanelRows = 16, one vector lane a row, and kGroupPanels = 4 panels are read
// side by side as one stream:
//
//   | step 0: panel 0, 1, 2, 3 | step 1: panel 0, 1, 2, 3 | ...   (64 rows)
//
// The last one to three panels, if 4 does not divide them, are groups of one.
// A step of a panel holds the next few inputs of 16 rows, row r in lane r:
//   kF32           1 input    float
//   kF16, kBF16    1 input    16 bit
//   kE4M3, kE5M2   1 input    8 bit; E4M3 is read as the value / 2^8
//   kByte          4 inputs   32 bit, input j in octet j; code + 128 - centre
//   kNibble        8 inputs   32 bit, input j in the low half of octet j, input
//                             j + 4 in the high half of octet j
//   kCrumb        16 inputs   32 bit, input j in bits [2j, 2j + 2)
// kByte and kNibble are also what the integer dot product instructions read.
//
// The inputs are taken in `gather` order, groups one after the other, each
// padded to whole steps, so that any group size and any g_idx works. With
// groups g,
//   y[o] = final_scale * sum_g s[o, g] (sum_k v(code) x[k] - z[o, g] sum_k
//   x[k])
// where v is table[code] for kNibble and kCrumb and the number itself
// otherwise. Where v(code) = least + unit n(code) with small whole numbers n, as
// of all integer grids and of FP4, these are multiplied where they lie in their
// lane, as n 2^p, with x / 2^p (place_factors()), which is exact unless |x| <
// 2^-98; the block's end adds least * sum_k x[k].
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "compress/core/packed_weight.h"
#include "compress/kernels/aligned_buffer.h"

namespace llmpress {

inline constexpr std::size_t kPanelRows = 16;
inline constexpr std::size_t kGroupPanels = 4;
inline constexpr std::size_t kGroupRows = kPanelRows * kGroupPanels;
// Inputs accumulated in one float before they are added to the total: bounds
// the rounding error and the decoded tile.
inline constexpr std::size_t kBlockDepth = 128;
// Products of a byte with a byte summed in an int32 without overflow:
// 2^31 / (255 * 256) > 32768.
inline constexpr std::size_t kIntBlockDepth = 32768;
inline constexpr std::uint32_t kPadding = UINT32_MAX;

enum class PanelFormat {
  kF32,
  kF16,
  kBF16,
  kE4M3,
  kE5M2,
  kByte,
  kNibble,
  kCrumb
};
struct PanelFormatFacts {
  std::size_t step_inputs, lane_bytes;
};
PanelFormatFacts facts(PanelFormat format);

// How the values v of a format's codes become whole numbers.
enum class PanelCodes {
  kNone,    // floats, and octets of FP8
  kPlain,   // v = least + code
  kMapped,  // v = least + unit map_high[code], at most kSmallOctet each
  // v ~ least + unit (64 map_high[code] + map_low[code]): 12 bits, where
  // nothing shorter is exact; for rounded inputs only.
  kMappedPair,
};
inline constexpr int kSmallOctet = 63;
inline constexpr unsigned kPartBits = 6;  // of a number of two parts

enum class PanelScaleType { kNone, kF32, kF16, kBF16, kE8M0, kE4M3 };
enum class PanelZeroType { kNone, kI8, kF32 };
std::size_t element_bytes(PanelScaleType type);
std::size_t element_bytes(PanelZeroType type);

// Steps [begin, end) of one group, counted in inputs of the gathered order.
struct PanelBlock {
  std::uint32_t begin = 0, end = 0, group = 0;
};

struct PanelWeight {
  std::size_t out = 0, in = 0;
  std::size_t depth = 0;   // gathered inputs, a multiple of the step
  std::size_t groups = 1;  // of scales and zeros
  PanelFormat format = PanelFormat::kF32;
  float table[16] = {};
  PanelCodes codes = PanelCodes::kNone;
  float least = 0, unit = 1;
  std::uint8_t map_high[16] = {}, map_low[16] = {};
  // [depth] the input of each place, or kPadding; empty: the identity.
  std::vector<std::uint32_t> gather{};
  std::vector<PanelBlock> blocks{};      // at most kBlockDepth deep
  std::vector<PanelBlock> int_blocks{};  // at most kIntBlockDepth deep
  AlignedBuffer data{};
  PanelScaleType scale_type = PanelScaleType::kNone;
  PanelZeroType zero_type = PanelZeroType::kNone;
  // Both [panel groups, groups, panels of the group, 16], so that they are
  // read in one stream, too.
  AlignedBuffer scales{};
  AlignedBuffer zeros{};  // less `centre`
  float final_scale = 1;
  // What an integer kernel subtracts from the stored unsigned code besides the
  // zero: 8 for kNibble, 128 for kByte.
  std::int32_t centre = 0;

  std::size_t panels() const { return (out + kPanelRows - 1) / kPanelRows; }
  std::size_t full_groups() const { return panels() / kGroupPanels; }
  std::size_t panel_groups() const {
    return full_groups() + panels() % kGroupPanels;
  }
  std::size_t panels_in_group(std::size_t group) const {
    return group < full_groups() ? kGroupPanels : 1;
  }
  std::size_t first_panel(std::size_t group) const {
    return group < full_groups()
               ? group * kGroupPanels
               : full_groups() * kGroupPanels + (group - full_groups());
  }
  // Where the scales and zeros of a panel's rows begin.
  std::size_t slot(std::size_t panel, std::size_t group) const {
    const bool grouped = panel / kGroupPanels < full_groups();
    const std::size_t side_by_side = grouped ? kGroupPanels : 1;
    const std::size_t first = panel / side_by_side * side_by_side;
    return (first * groups + group * side_by_side + (panel - first)) *
           kPanelRows;
  }
  // Whether float inputs are multiplied with whole numbers in their places.
  bool multiplies_in_place() const {
    return codes == PanelCodes::kPlain || codes == PanelCodes::kMapped;
  }
  // Whether products need the sums of the inputs of each block.
  bool needs_sums() const {
    return zero_type != PanelZeroType::kNone ||
           (multiplies_in_place() && least != 0);
  }
  const std::byte* group_data(std::size_t group) const;
  std::size_t bytes() const;
};

// What the inputs are multiplied by for codes in their places: of input j of
// each kPlaceFactors.
inline constexpr std::size_t kPlaceFactors = 16;
std::array<float, kPlaceFactors> place_factors(const PanelWeight& w);

// Of kByte and kNibble: the stored code of row o at gathered place k, less
// `centre`; and the zero to take from it.
std::int32_t panel_code(const PanelWeight& w, std::size_t o, std::size_t k);
std::int32_t panel_zero(const PanelWeight& w, std::size_t o, std::size_t group);
float panel_scale(const PanelWeight& w, std::size_t o, std::size_t group);

// nullopt where the layout does not fit: sparse weights, 4-bit tables whose
// blocks straddle rows at fewer than 8 columns, FP8 codes or scales that are
// NaN. Outlier columns of an Int8Weight are left to the caller.
std::optional<PanelWeight> make_panels(const PackedWeight& weight);

}  // namespace llmpress
