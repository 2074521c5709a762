#include "compress/core/packed/grouped_int_weight.h"

#include <algorithm>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/packed/packed_checker.h"

namespace llmpress {
namespace {

// s (q - z) over one stretch of columns that share a group.
void decode_group(std::span<const std::uint8_t> codes, float scale, float zero,
                  std::span<float> out) {
  for (std::size_t i = 0; i < codes.size(); ++i) {
    out[i] = scale * (static_cast<float>(codes[i]) - zero);
  }
}

float zero_of(const GroupedIntWeight& w, std::size_t slot) {
  if (!w.float_zeros.empty()) return w.float_zeros[slot];
  if (!w.zeros.empty()) return static_cast<float>(w.zeros[slot]);
  return static_cast<float>(1 << (w.bits - 1));
}

}  // namespace

void decode_row(const GroupedIntWeight& w, std::size_t o,
                std::span<float> row) {
  const std::size_t words = w.words_per_row(), groups = w.groups();
  std::vector<std::uint8_t> codes(w.in);
  unpack_codes(std::span(w.codes).subspan(o * words, words), w.bits, codes);
  if (!w.g_idx.empty()) {
    for (std::size_t i = 0; i < w.in; ++i) {
      const std::size_t slot = o * groups + w.g_idx[i];
      row[i] =
          w.scales[slot] * (static_cast<float>(codes[i]) - zero_of(w, slot));
    }
    return;
  }
  for (std::size_t g = 0; g < groups; ++g) {
    const std::size_t begin = g * w.group_size;
    const std::size_t size = std::min(w.group_size, w.in - begin);
    const std::size_t slot = o * groups + g;
    decode_group(std::span(codes).subspan(begin, size), w.scales[slot],
                 zero_of(w, slot), row.subspan(begin, size));
  }
}

std::size_t stored_bytes(const GroupedIntWeight& w) {
  return w.codes.size() * sizeof(w.codes[0]) +
         bytes_of(w.scale_dtype, w.scales.size()) +
         (w.zeros.empty() ? 0 : packed_zero_bytes(w.out, w.groups(), w.bits)) +
         bytes_of(w.scale_dtype, w.float_zeros.size()) +
         w.g_idx.size() * sizeof(w.g_idx[0]);
}

std::string describe(const GroupedIntWeight& w) {
  return describe_groups(w.bits, w.group_size, w.in) +
         (!w.float_zeros.empty() ? " float-zero"
          : w.symmetric          ? " sym"
                                 : " asym") +
         (w.g_idx.empty() ? "" : " g_idx");
}

void check(const GroupedIntWeight& w, const PackedChecker& c) {
  if (w.bits < 2 || w.bits > 8) {
    c.refuse(formatted("bits {}, wanted 2..8", w.bits));
  }
  c.group_size(w.group_size, w.in);
  const std::size_t slots = w.out * w.groups();
  c.size("codes", w.codes.size(), c.mul(w.out, w.words_per_row()));
  c.size("scales", w.scales.size(), slots);
  c.size("zeros", w.zeros.size(),
         w.symmetric || !w.float_zeros.empty() ? 0 : slots);
  c.size("float_zeros", w.float_zeros.size(),
         w.float_zeros.empty() ? 0 : slots);
  c.require(!w.symmetric || w.float_zeros.empty(),
            "float_zeros in a symmetric weight");
  c.size("g_idx", w.g_idx.size(), w.g_idx.empty() ? 0 : w.in);
  for (std::size_t i = 0; i < w.g_idx.size(); ++i) {
    if (w.g_idx[i] < w.groups()) continue;
    c.refuse(formatted("g_idx[{}] is {}, wanted less than {}", i, w.g_idx[i],
                       w.groups()));
  }
  c.codes("zeros", w.zeros, w.bits);
  c.scales("scales", w.scales, w.scale_dtype);
  c.scales("float_zeros", w.float_zeros, w.scale_dtype);
}

std::size_t GroupedIntWeight::groups() const {
  return ceil_div(in, group_size);
}

std::size_t GroupedIntWeight::words_per_row() const {
  return packed_words(in, bits);
}

std::vector<std::uint32_t> pack_rows(MatrixView<const std::uint8_t> codes,
                                     int bits) {
  const std::size_t words = packed_words(codes.cols(), bits);
  std::vector<std::uint32_t> packed(codes.rows() * words);
  for (std::size_t o = 0; o < codes.rows(); ++o) {
    pack_codes(codes.row(o), bits, std::span(packed).subspan(o * words, words));
  }
  return packed;
}

Matrix<std::uint8_t> unpack_rows(const GroupedIntWeight& weight) {
  const std::size_t words = weight.words_per_row();
  Matrix<std::uint8_t> codes(weight.out, weight.in);
  for (std::size_t o = 0; o < weight.out; ++o) {
    unpack_codes(std::span(weight.codes).subspan(o * words, words), weight.bits,
                 codes.row(o));
  }
  return codes;
}

std::string describe_groups(int bits, std::size_t group_size, std::size_t in) {
  return formatted(
      "int{}{}", bits,
      group_size >= in ? " channel" : formatted(" g{}", group_size));
}

std::size_t packed_zero_bytes(std::size_t out, std::size_t groups, int bits) {
  return packed_words(out, bits) * groups * sizeof(std::uint32_t);
}

}  // namespace llmpress
