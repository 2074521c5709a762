#include "compress/core/bit_packing.h"

#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

namespace llmpress {
namespace {

static_assert(std::endian::native == std::endian::little);

// Eight codes fill exactly `Bits` octets at octet (k / 8) * Bits, whatever
// Bits is: one load or store, eight shifts, no crossing of words to care about.
template <int Bits>
void pack(std::span<const std::uint8_t> codes, std::byte* to) {
  constexpr auto kBits = static_cast<unsigned>(Bits);
  const std::size_t whole = codes.size() / 8 * 8;
  const std::uint8_t* from = codes.data();
  for (std::size_t k = 0; k < whole; k += 8, to += kBits) {
    std::uint64_t eight = 0;
    if constexpr (kBits == 4) {  // pairs, fours, all eight side by side
      std::memcpy(&eight, from + k, sizeof eight);
      eight = (eight | eight >> 4) & 0x00ff00ff00ff00ff;
      eight = (eight | eight >> 8) & 0x0000ffff0000ffff;
      eight |= eight >> 16;
    } else {
      for (unsigned j = 0; j < 8; ++j) {
        eight |= static_cast<std::uint64_t>(from[k + j]) << (j * kBits);
      }
    }
    std::memcpy(to, &eight, kBits);
  }
  std::uint64_t rest = 0;
  for (std::size_t k = whole; k < codes.size(); ++k) {
    rest |= static_cast<std::uint64_t>(from[k])
            << (static_cast<unsigned>(k - whole) * kBits);
  }
  std::memcpy(to, &rest, ((codes.size() - whole) * kBits + 7) / 8);
}

template <int Bits>
void unpack(const std::byte* from, std::span<std::uint8_t> codes) {
  constexpr auto kBits = static_cast<unsigned>(Bits);
  constexpr std::uint64_t kMask = (1u << kBits) - 1;
  const std::size_t whole = codes.size() / 8 * 8;
  std::uint8_t* to = codes.data();
  for (std::size_t k = 0; k < whole; k += 8, from += kBits) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, from, kBits);
    if constexpr (kBits == 4) {  // halves, quarters, eighths to their octets
      eight = (eight | eight << 16) & 0x0000ffff0000ffff;
      eight = (eight | eight << 8) & 0x00ff00ff00ff00ff;
      eight = (eight | eight << 4) & 0x0f0f0f0f0f0f0f0f;
      std::memcpy(to + k, &eight, sizeof eight);
      continue;
    }
    for (unsigned j = 0; j < 8; ++j) {
      to[k + j] = static_cast<std::uint8_t>((eight >> (j * kBits)) & kMask);
    }
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, from, ((codes.size() - whole) * kBits + 7) / 8);
  for (std::size_t k = whole; k < codes.size(); ++k) {
    const auto shift = static_cast<unsigned>(k - whole) * kBits;
    to[k] = static_cast<std::uint8_t>((rest >> shift) & kMask);
  }
}

// Calls f with the width as a compile-time constant.
template <class F>
void with_bits(int bits, F&& f) {
  switch (bits) {
    case 1:
      return f(std::integral_constant<int, 1>{});
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    case 5:
      return f(std::integral_constant<int, 5>{});
    case 6:
      return f(std::integral_constant<int, 6>{});
    case 7:
      return f(std::integral_constant<int, 7>{});
    case 8:
      return f(std::integral_constant<int, 8>{});
    default:
      assert(false && "bits must be 1..8");
  }
}

}  // namespace

std::size_t packed_words(std::size_t count, int bits) {
  assert(bits >= 1 && bits <= 8);
  const auto b = static_cast<std::size_t>(bits);
  // 32 codes fill `bits` words; in two parts, so that count * bits cannot
  // overflow.
  return count / 32 * b + (count % 32 * b + 31) / 32;
}

void pack_codes(std::span<const std::uint8_t> codes, int bits,
                std::span<std::uint32_t> words) {
  assert(words.size() == packed_words(codes.size(), bits));
  if (codes.empty()) return;
#ifndef NDEBUG
  for (const std::uint8_t c : codes) assert(c >> bits == 0);
#endif
  words.back() = 0;  // the padding after the last code
  with_bits(bits, [&](auto b) {
    pack<decltype(b)::value>(codes, std::as_writable_bytes(words).data());
  });
}

void unpack_codes(std::span<const std::uint32_t> words, int bits,
                  std::span<std::uint8_t> codes) {
  assert(words.size() == packed_words(codes.size(), bits));
  if (codes.empty()) return;
  with_bits(bits, [&](auto b) {
    unpack<decltype(b)::value>(std::as_bytes(words).data(), codes);
  });
}

std::uint8_t packed_code(std::span<const std::uint32_t> words, int bits,
                         std::size_t index) {
  const std::size_t bit = index * static_cast<std::size_t>(bits);
  const std::size_t word = bit / 32;
  const auto shift = static_cast<unsigned>(bit % 32);
  assert(word < words.size());
  std::uint64_t window = words[word];
  if (word + 1 < words.size()) {
    window |= static_cast<std::uint64_t>(words[word + 1]) << 32;
  }
  return static_cast<std::uint8_t>((window >> shift) & ((1u << bits) - 1));
}

}  // namespace llmpress
