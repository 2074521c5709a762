// Integer codes in 32-bit words as compressed-tensors has packed them.
//
//   dense  codes one after the other, across words (the same as bit_packing.h)
//   old    floor(32 / bits) codes a word, the high bits left over unused
//
// The two differ for 3, 5, 6 and 7 bits. Zero points are packed along dimension
// 0: word r of column g holds bits [32 r, 32 r + 32) of the stream of that
// column's codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace llmpress {

enum class WordPacking { kDense, kOld };

// Words that `count` codes take.
std::size_t words_for(std::size_t count, int bits, WordPacking packing);

// codes.size() codes from one row of words_for(...) words.
void unpack_words(std::span<const std::uint32_t> words, int bits,
                  WordPacking packing, std::span<std::uint8_t> codes);

// `codes` [rows, cols] -> words [words_for(rows), cols], dense.
std::vector<std::uint32_t> pack_columns(std::span<const std::uint8_t> codes,
                                        std::size_t rows, std::size_t cols,
                                        int bits);
// The inverse: `words` [words_for(rows), cols] -> codes [rows, cols].
std::vector<std::uint8_t> unpack_columns(std::span<const std::uint32_t> words,
                                         std::size_t rows, std::size_t cols,
                                         int bits, WordPacking packing);

}  // namespace llmpress
