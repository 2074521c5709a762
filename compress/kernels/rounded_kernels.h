// Products of panels (panel_weight.h) with inputs rounded to int8 for speed,
// each block of at most kBlockDepth inputs of a token by itself:
//   x ~ s c,  s = max|x| / 127 over the block,  c = round(x / s)
//   y = sum over blocks of s_w s (unit sum n c + (least - z) sum c)
// with exact integer sums, for every weight whose values are whole numbers n or
// a table of them (PanelCodes). One table of functions an instruction set; a
// token's result has the same bits whether it comes alone or among many.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compress/kernels/panel_kernels.h"
#include "compress/kernels/panel_weight.h"

namespace llmpress {

// Of rounded inputs, both [blocks, tokens].
struct RoundedSums {
  const float* scales = nullptr;
  const float* sums = nullptr;  // s times the sum of the block's codes
  std::size_t tokens = 0;
};

struct RoundedKernels {
  // Whether tiles hold words of 16 bits, two of each token side by side, instead
  // of octets.
  bool (*takes_words)(const PanelWeight& W);
  // The size of the next tile when so many tokens are left.
  std::size_t (*next_tile)(std::size_t remaining);
  std::size_t (*next_word_tile)(std::size_t remaining);

  // Rounds x [depth], in gathered order: codes [depth] in the order in which the
  // products want them, scales[b * stride] and sums[b * stride] of each block.
  // False if a value is not finite.
  bool (*round_row)(const PanelWeight& W, const float* x, std::int8_t* codes,
                    float* scales, float* sums, std::size_t stride);

  // C [tokens, kGroupRows] = the product of one panel group with
  // rows[t][depth].
  void (*multiply_few)(const PanelWeight& W, std::size_t group,
                       const std::int8_t* const* rows, const RoundedSums& sums,
                       float* C);
  // C [tokens of the range, groups * kGroupRows]. Tiles hold octets or words.
  void (*multiply_tiles)(const PanelWeight& W, const TileRange& range,
                         const TokenTiles& X, const RoundedSums& sums,
                         float* C);
};

// `isa` is not kScalar.
const RoundedKernels& rounded_kernels(Isa isa);
const RoundedKernels& rounded_kernels_avx2();
const RoundedKernels& rounded_kernels_avx512();

}  // namespace llmpress
