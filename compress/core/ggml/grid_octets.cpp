#include "compress/core/ggml/grid_octets.h"

#include <bit>
#include <stdexcept>

#include "compress/core/float_formats.h"
#include "compress/core/ggml/ggml_grid.h"

namespace llmpress {
namespace {

// Bits [begin + block * (k / n) + each * (k % n), ... + bits) are item k of n
// in 32 weights.
struct Field {
  std::size_t begin = 0, block = 0, each = 0;
  std::size_t bits = 0;  // 0: the type has no such field

  std::size_t at(std::size_t k, std::size_t n) const {
    return begin + block * (k / n) + each * (k % n);
  }
};

struct Fields {
  GgmlType type;
  Field index, high, signs, scale, shift{};
};

constexpr Fields kFields[] = {
    {GgmlType::kIq2Xxs, {16, 64, 8, 8}, {}, {48, 64, 7, 7}, {76, 64, 0, 4}},
    {GgmlType::kIq2Xs, {16, 64, 16, 9}, {}, {25, 64, 16, 7}, {528, 8, 4, 4}},
    {GgmlType::kIq2S,
     {16, 32, 8, 8},
     {528, 8, 2, 2},
     {272, 32, 8, 8},
     {592, 8, 4, 4}},
    {GgmlType::kIq3Xxs, {16, 64, 8, 8}, {}, {528, 32, 7, 7}, {556, 32, 0, 4}},
    {GgmlType::kIq3S,
     {16, 64, 8, 8},
     {528, 8, 1, 1},
     {592, 32, 8, 8},
     {848, 4, 0, 4}},
    {GgmlType::kIq1S,
     {16, 32, 8, 8},
     {272, 16, 3, 3},
     {},
     {284, 16, 0, 3},
     {287, 16, 0, 1}},
    {GgmlType::kIq1M,
     {0, 32, 8, 8},
     {256, 16, 4, 3},
     {},
     {384, 0, 0, 3},
     {259, 16, 4, 1}},
};

const Fields& fields_of(GgmlType type) {
  for (const Fields& row : kFields) {
    if (row.type == type) return row;
  }
  throw std::logic_error("grid block: a type without fields");
}

// At most 16 bits.
unsigned bits_at(std::span<const std::uint8_t> octets, std::size_t begin,
                 std::size_t count) {
  if (count == 0) return 0;
  unsigned value = 0;
  for (std::size_t o = begin / 8; o <= (begin + count - 1) / 8; ++o) {
    value |= static_cast<unsigned>(octets[o]) << 8 * (o - begin / 8);
  }
  return value >> begin % 8 & ((1u << count) - 1);
}

void put_bits(std::span<std::uint8_t> octets, std::size_t begin,
              std::size_t count, unsigned value) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t bit = begin + i;
    octets[bit / 8] = static_cast<std::uint8_t>(octets[bit / 8] |
                                                (value >> i & 1u) << bit % 8);
  }
}

constexpr std::size_t kD = 0, kSpreadD = 384;

std::size_t scale_place(const Fields& f, std::size_t j, std::size_t per_32) {
  if (f.type != GgmlType::kIq1M) return f.scale.at(j, per_32);
  return f.scale.begin + j / 4 * 16 + j % 4 * 3;
}

std::uint16_t d_code(const Fields& f, std::span<const std::uint8_t> octets) {
  if (f.type != GgmlType::kIq1M) {
    return static_cast<std::uint16_t>(bits_at(octets, kD, 16));
  }
  unsigned code = 0;
  for (std::size_t k = 0; k < 4; ++k) {
    code |= bits_at(octets, kSpreadD + 16 * k + 12, 4) << 4 * k;
  }
  return static_cast<std::uint16_t>(code);
}

void put_d(const Fields& f, std::span<std::uint8_t> octets,
           std::uint16_t code) {
  if (f.type != GgmlType::kIq1M) return put_bits(octets, kD, 16, code);
  for (std::size_t k = 0; k < 4; ++k) {
    put_bits(octets, kSpreadD + 16 * k + 12, 4, code >> 4 * k & 15u);
  }
}

// The eighth sign makes their number even.
unsigned all_signs(unsigned seven) {
  return seven | static_cast<unsigned>(std::popcount(seven) & 1) << 7;
}

// Of the s-th 8 weights a bit each: whether its code is of the upper half, for
// its sign or for what is added to it.
unsigned upper_half(const Fields& f, std::span<const std::uint8_t> octets,
                    std::size_t s) {
  if (f.signs.bits != 0) {
    const unsigned signs = bits_at(octets, f.signs.at(s, 4), f.signs.bits);
    return f.signs.bits == 7 ? all_signs(signs) : signs;
  }
  const std::size_t per_32 = f.shift.each == 0 ? 1 : 4;
  return bits_at(octets, f.shift.at(s * per_32 / 4, per_32), 1) * 255;
}

}  // namespace

GgmlBlock unpack_grid_block(GgmlType type,
                            std::span<const std::uint8_t> octets) {
  const Fields& f = fields_of(type);
  const GgmlGrid& grid = *grid_of(type);
  const GgmlLayout& l = layout(type);
  GgmlBlock block;
  block.d = f16_to_float(d_code(f, octets));
  const std::size_t groups = 32 / grid.group;
  for (std::size_t i = 0; i < kGgmlMostElements; i += grid.group) {
    const std::size_t g = i / grid.group;
    const unsigned entry =
        bits_at(octets, f.index.at(g, groups), f.index.bits) |
        bits_at(octets, f.high.at(g, groups), f.high.bits) << f.index.bits;
    const auto point = grid.point(entry);
    const unsigned upper = upper_half(f, octets, i / 8) >> i % 8;
    for (std::size_t k = 0; k < grid.group; ++k) {
      block.codes[i + k] =
          static_cast<std::uint8_t>(point[k] + (upper >> k & 1u) * grid.levels);
    }
  }
  for (std::size_t j = 0; j < kGgmlMostElements / l.step; ++j) {
    block.scale_codes[j] = static_cast<std::int16_t>(
        bits_at(octets, scale_place(f, j, 32 / l.step), f.scale.bits));
  }
  return block;
}

namespace {

void put_groups(const Fields& f, const GgmlGrid& grid, const GgmlBlock& block,
                std::span<std::uint8_t> octets) {
  const std::size_t groups = 32 / grid.group;
  std::array<std::uint8_t, 8> point{};
  for (std::size_t g = 0; g < kGgmlMostElements / grid.group; ++g) {
    for (std::size_t k = 0; k < grid.group; ++k) {
      point[k] = block.codes[g * grid.group + k] % grid.levels;
    }
    const auto entry = grid.find(std::span(point).first(grid.group));
    if (!entry) throw std::logic_error("grid block: codes off the grid");
    const auto index = static_cast<unsigned>(*entry);
    put_bits(octets, f.index.at(g, groups), f.index.bits, index);
    put_bits(octets, f.high.at(g, groups), f.high.bits, index >> f.index.bits);
  }
}

void put_signs(const Fields& f, const GgmlGrid& grid, const GgmlBlock& block,
               std::span<std::uint8_t> octets) {
  const std::size_t per_32 =
      f.signs.bits != 0 ? 4 : (f.shift.each == 0 ? 1 : 4);
  const std::size_t width = 32 / per_32;
  const Field& field = f.signs.bits != 0 ? f.signs : f.shift;
  for (std::size_t s = 0; s < kGgmlMostElements / width; ++s) {
    unsigned signs = 0;
    for (std::size_t k = 0; k < width; ++k) {
      const bool upper = block.codes[s * width + k] >= grid.levels;
      signs |= static_cast<unsigned>(upper) << k;
    }
    const unsigned all = width == 8 ? 255u : ~0u;
    const bool said = f.signs.bits == 0   ? signs == 0 || signs == all
                      : f.signs.bits == 7 ? all_signs(signs & 127u) == signs
                                          : true;
    if (!said) throw std::logic_error("grid block: signs that are not stored");
    put_bits(octets, field.at(s, per_32), field.bits, signs);
  }
}

}  // namespace

void pack_grid_block(GgmlType type, const GgmlBlock& block,
                     std::span<std::uint8_t> octets) {
  const Fields& f = fields_of(type);
  const GgmlGrid& grid = *grid_of(type);
  const GgmlLayout& l = layout(type);
  put_d(f, octets, f16_from_float(block.d));
  put_groups(f, grid, block, octets);
  put_signs(f, grid, block, octets);
  for (std::size_t j = 0; j < kGgmlMostElements / l.step; ++j) {
    put_bits(octets, scale_place(f, j, 32 / l.step), f.scale.bits,
             static_cast<unsigned>(block.scale_codes[j]));
  }
}

}  // namespace llmpress
