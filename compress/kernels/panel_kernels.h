// The products of panels (panel_weight.h) with prepared inputs, one table of
// functions an instruction set. A sum runs over the inputs in order within a
// block and over the blocks in order, in every function, so that a token's
// result has the same bits whether it comes alone or among many.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/kernels/aligned_buffer.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/panel_weight.h"

namespace llmpress {

// Up to this many tokens take multiply_few.
inline constexpr std::size_t kFewTokens = 4;

// Tokens packed for the register tiles. Tile i holds tokens [first[i],
// first[i + 1]) and starts at element first[i] * depth:
//   float  | input 0: one float a token | input 1 | ...
//   int8   | inputs 0..3: four octets a token | inputs 4..7 | ...
struct TokenTiles {
  std::size_t tokens = 0;
  std::vector<std::size_t> first{};  // tiles + 1
  const std::byte* data = nullptr;

  std::size_t tiles() const { return first.size() - 1; }
};

// What a product needs besides the weight and the inputs. Sums are
// [blocks, tokens] over the inputs of a block; null where the weight has no
// zeros.
struct FloatSums {
  const float* sums = nullptr;
  std::size_t tokens = 0;
};
struct IntSums {
  const std::int32_t* sums = nullptr;  // of the activation codes
  std::size_t tokens = 0;
  const std::int32_t* token_zeros = nullptr;  // [tokens]; null: all 0
  // sum over the block of (code - centre - zero), [panels, int_blocks, 16];
  // read only with token_zeros.
  const std::int32_t* weight_sums = nullptr;
};

// Panel groups [first_group, first_group + groups) times the tokens of tiles
// [first_tile, end_tile).
struct TileRange {
  std::size_t first_group = 0, groups = 0, first_tile = 0, end_tile = 0;
};

struct PanelKernels {
  // The size of the next tile when so many tokens are left.
  std::size_t (*next_tile)(std::size_t remaining);

  // C [tokens, kGroupRows] = the product of one panel group with
  // rows[t][depth].
  void (*multiply_few)(const PanelWeight& W, std::size_t group,
                       const float* const* rows, const FloatSums& sums,
                       float* C);
  void (*multiply_few_int)(const PanelWeight& W, std::size_t group,
                           const std::int8_t* const* rows, const IntSums& sums,
                           float* C);
  // C [tokens of the range, groups * kGroupRows].
  void (*multiply_tiles)(const PanelWeight& W, const TileRange& range,
                         const TokenTiles& X, const FloatSums& sums, float* C);
  void (*multiply_tiles_int)(const PanelWeight& W, const TileRange& range,
                             const TokenTiles& X, const IntSums& sums,
                             float* C);
};

// `isa` is not kScalar.
const PanelKernels& panel_kernels(Isa isa);
const PanelKernels& panel_kernels_avx2();
const PanelKernels& panel_kernels_avx512();

}  // namespace llmpress
