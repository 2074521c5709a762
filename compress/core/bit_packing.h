// Dense bit packing, least significant bit first: code k of a row occupies bits
// [k * bits, (k + 1) * bits) of the row's stream of little-endian 32-bit words,
// crossing words where bits does not divide 32. The same layout serves GPTQ's
// 2, 3, 4, 8 bits and compressed-tensors' pack-quantized at any width.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace llmpress {

// ceil(count * bits / 32).
std::size_t packed_words(std::size_t count, int bits);

// `codes` each < 2^bits (assert). words.size() must be packed_words(...).
void pack_codes(std::span<const std::uint8_t> codes, int bits,
                std::span<std::uint32_t> words);
void unpack_codes(std::span<const std::uint32_t> words, int bits,
                  std::span<std::uint8_t> codes);

// Code `index` of a row's words.
std::uint8_t packed_code(std::span<const std::uint32_t> words, int bits,
                         std::size_t index);

}  // namespace llmpress
