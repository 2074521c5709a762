// How make_panels.cpp fills a PanelWeight: the order of the inputs, rows of codes
// and numbers, scales and zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/kernels/panel_weight.h"

namespace llmpress {

// The inputs of each group, in order: group_of[i] of input i, in [0, w.groups).
// The places of `left_out` inputs (ascending) are padding. Sets depth, gather
// and blocks, and allocates the data.
void lay_out_inputs(PanelWeight& w, std::span<const std::uint32_t> group_of,
                    std::span<const std::uint32_t> left_out = {});
// Consecutive groups of so many inputs.
void lay_out_inputs(PanelWeight& w, std::size_t group_size,
                    std::span<const std::uint32_t> left_out = {});

// Takes the rows one after another and writes them panel by panel.
class PanelRowWriter {
 public:
  explicit PanelRowWriter(PanelWeight& w);

  // Codes of every input, one octet each; `padding` fills the gaps.
  void add_codes(std::span<const std::uint8_t> codes, std::uint8_t padding);
  // Codes of kNibble in order, two an octet, where no input is moved: `first_low`
  // says that the first of two is in the low half.
  bool takes_pairs() const;
  void add_pairs(std::span<const std::byte> octets, bool first_low);
  // Numbers of every input as they are stored, of formats whose step is one
  // input in order.
  void add_numbers(std::span<const std::byte> row);

 private:
  std::byte* row();  // of the lanes to fill
  void end_row();
  void write_panel();

  PanelWeight& w_;
  std::size_t steps_, row_bytes_, next_ = 0;
  std::vector<std::byte> panel_;  // [kPanelRows, row_bytes_]
  std::vector<std::uint8_t> ordered_{};
};

PanelScaleType panel_scale_type(DType dtype);

template <class Element, class ValueOf>
void fill_slots(const PanelWeight& w, AlignedBuffer& buffer, ValueOf value_of) {
  buffer = AlignedBuffer(w.panels() * w.groups * kPanelRows * sizeof(Element));
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t g = 0; g < w.groups; ++g) {
      const Element e = value_of(o, g);
      const std::size_t slot = w.slot(o / kPanelRows, g) + o % kPanelRows;
      std::memcpy(buffer.data() + slot * sizeof(Element), &e, sizeof(Element));
    }
  }
}

// scales [out, groups], exact in `type`, which is not one of the octet types.
void fill_scales(PanelWeight& w, PanelScaleType type,
                 std::span<const float> scales);

// Finds out how w's table and format make whole numbers: codes, least, unit and
// the maps.
void classify_codes(PanelWeight& w);

}  // namespace llmpress
