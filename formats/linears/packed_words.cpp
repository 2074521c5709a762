#include "formats/linears/packed_words.h"

#include <cassert>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"

namespace llmpress {

std::size_t words_for(std::size_t count, int bits, WordPacking packing) {
  if (packing == WordPacking::kDense) return packed_words(count, bits);
  return ceil_div(count, static_cast<std::size_t>(32 / bits));
}

void unpack_words(std::span<const std::uint32_t> words, int bits,
                  WordPacking packing, std::span<std::uint8_t> codes) {
  assert(words.size() == words_for(codes.size(), bits, packing));
  if (packing == WordPacking::kDense) {
    unpack_codes(words, bits, codes);
    return;
  }
  const auto per_word = static_cast<std::size_t>(32 / bits);
  const std::uint32_t mask = (1U << bits) - 1;
  for (std::size_t k = 0; k < codes.size(); ++k) {
    const std::size_t shift = k % per_word * static_cast<std::size_t>(bits);
    codes[k] = static_cast<std::uint8_t>((words[k / per_word] >> shift) & mask);
  }
}

std::vector<std::uint32_t> pack_columns(std::span<const std::uint8_t> codes,
                                        std::size_t rows, std::size_t cols,
                                        int bits) {
  assert(codes.size() == rows * cols);
  const std::size_t count = packed_words(rows, bits);
  std::vector<std::uint32_t> words(count * cols), column_words(count);
  std::vector<std::uint8_t> column(rows);
  for (std::size_t c = 0; c < cols; ++c) {
    for (std::size_t r = 0; r < rows; ++r) column[r] = codes[r * cols + c];
    pack_codes(column, bits, column_words);
    for (std::size_t w = 0; w < count; ++w)
      words[w * cols + c] = column_words[w];
  }
  return words;
}

std::vector<std::uint8_t> unpack_columns(std::span<const std::uint32_t> words,
                                         std::size_t rows, std::size_t cols,
                                         int bits, WordPacking packing) {
  const std::size_t count = words_for(rows, bits, packing);
  assert(words.size() == count * cols);
  std::vector<std::uint8_t> codes(rows * cols), column(rows);
  std::vector<std::uint32_t> column_words(count);
  for (std::size_t c = 0; c < cols; ++c) {
    for (std::size_t w = 0; w < count; ++w)
      column_words[w] = words[w * cols + c];
    unpack_words(column_words, bits, packing, column);
    for (std::size_t r = 0; r < rows; ++r) codes[r * cols + c] = column[r];
  }
  return codes;
}

}  // namespace llmpress
