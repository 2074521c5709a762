#include <algorithm>
#include <cstring>

#include "compress/core/checked.h"
#include "compress/kernels/sparse_product.h"

namespace llmpress {
namespace {

constexpr std::size_t kLanes = 16;

SparseValues value_type(const SparseWeight& w) {
  if (w.bits != 0) return SparseValues::kCodes;
  if (w.dtype == DType::kF16) return SparseValues::kF16;
  if (w.dtype == DType::kBF16) return SparseValues::kBF16;
  return SparseValues::kF32;
}

void fill_grids(const SparseWeight& w, SparsePanels& p) {
  p.groups = ceil_div(w.in, w.group_size);
  for (std::size_t step = 0; step < p.steps; ++step) {
    p.group_of.push_back(
        static_cast<std::uint32_t>(step * kLanes / w.group_size));
  }
  p.scales = w.scales;
  if (w.zeros.empty()) {
    p.zeros.assign(w.scales.size(), static_cast<float>(1 << (w.bits - 1)));
  } else {
    p.zeros.assign(w.zeros.begin(), w.zeros.end());
  }
}

void lay_out_rows(const SparseWeight& w, SparsePanels& p) {
  p.row_offsets = w.row_offsets;
  const std::size_t octets = ceil_div(w.in, 8);
  p.masks = AlignedBuffer(w.out * p.steps * sizeof(std::uint16_t));
  for (std::size_t o = 0; o < w.out; ++o) {
    std::memcpy(p.masks.data() + o * p.steps * sizeof(std::uint16_t),
                w.mask.data() + o * octets, octets);
  }
  const auto values = w.bits == 0 ? std::as_bytes(std::span(w.data))
                                  : std::as_bytes(std::span(w.codes));
  p.values = AlignedBuffer(values.size() + kSparseSlackBytes);
  std::copy(values.begin(), values.end(), p.values.data());
  if (w.bits != 0) fill_grids(w, p);
}

// Of one row: its numbers in the lanes `lane` and `lane` + 1 of each four.
void lay_out_row_of_pair(const SparseWeight& w, std::size_t o,
                         SparsePanels& p) {
  const std::size_t pair = o / 2, lane = o % 2 * 2;
  const std::size_t bytes = bytes_of_value(p.type);
  const auto stored = w.bits == 0 ? std::as_bytes(std::span(w.data))
                                  : std::as_bytes(std::span(w.codes));
  const std::byte* from = stored.data() + w.row_offsets[o] * bytes;
  const std::uint8_t* const mask = w.mask.data() + o * ceil_div(w.in, 8);
  for (std::size_t four = 0; four < w.in; four += 4) {
    const std::size_t vector = pair * p.steps + four / kLanes;
    std::size_t at = four % kLanes + lane;
    std::uint32_t columns = 0;
    std::memcpy(&columns, p.masks.data() + vector * sizeof columns,
                sizeof columns);
    for (std::uint32_t c = 0; c < 4; ++c) {
      if ((mask[(four + c) / 8] >> (four + c) % 8 & 1) == 0) continue;
      columns |= c << 2 * at;
      std::memcpy(p.values.data() + (vector * kLanes + at) * bytes, from,
                  bytes);
      from += bytes;
      ++at;
    }
    std::memcpy(p.masks.data() + vector * sizeof columns, &columns,
                sizeof columns);
  }
}

// Scales or zeros [out, groups] as [pairs, groups, 4].
std::vector<float> in_fours(std::span<const float> of_rows, std::size_t out,
                            std::size_t groups) {
  std::vector<float> fours(ceil_div(out, 2) * groups * 4);
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t g = 0; g < groups; ++g) {
      float* const to = &fours[4 * (o / 2 * groups + g) + o % 2 * 2];
      to[0] = to[1] = of_rows[o * groups + g];
    }
  }
  return fours;
}

void lay_out_pairs(const SparseWeight& w, SparsePanels& p) {
  p.in_pairs = true;
  const std::size_t vectors = p.pairs() * p.steps;
  p.masks = AlignedBuffer(vectors * sizeof(std::uint32_t));
  p.values = AlignedBuffer(vectors * kLanes * bytes_of_value(p.type));
  for (std::size_t o = 0; o < w.out; ++o) lay_out_row_of_pair(w, o, p);
  if (w.bits == 0) return;
  fill_grids(w, p);
  p.scales = in_fours(p.scales, w.out, p.groups);
  p.zeros = in_fours(p.zeros, w.out, p.groups);
}

}  // namespace

std::size_t bytes_of_value(SparseValues type) {
  switch (type) {
    case SparseValues::kF32:
      return 4;
    case SparseValues::kF16:
    case SparseValues::kBF16:
      return 2;
    case SparseValues::kCodes:
      return 1;
  }
  return 4;
}

std::size_t SparsePanels::bytes() const {
  return masks.size() + values.size() +
         row_offsets.size() * sizeof(std::uint64_t) +
         (scales.size() + zeros.size()) * sizeof(float);
}

std::optional<SparsePanels> make_sparse_panels(const SparseWeight& w) {
  if (w.bits != 0 && w.group_size % kLanes != 0 && w.group_size < w.in) {
    return std::nullopt;
  }
  SparsePanels p{.out = w.out, .in = w.in};
  p.steps = ceil_div(w.in, kLanes);
  p.type = value_type(w);
  if (w.pattern == SparsePattern::k2of4 && w.in % 4 == 0) {
    lay_out_pairs(w, p);
  } else {
    lay_out_rows(w, p);
  }
  return p;
}

}  // namespace llmpress
