// Blocks of the types with codebooks (ggml_grid.h) from octets and to octets.
// Every field is a few bits of the block, little-endian from its first octet:
//
//            d       index        high bits of it  signs of 8    scale
//   iq2_xxs  bit 0   16 + 64b+8g                   48 + 64b+7g   76 + 64b
//   iq2_xs   bit 0   16 + 64b+16g                  25 + 64b+16g  528 + 4j
//   iq2_s    bit 0   16 + 8g      528 + 2g         272 + 8g      592 + 4j
//   iq3_xxs  bit 0   16 + 8g                       528 + 32b+7s  556 + 32b
//   iq3_s    bit 0   16 + 8g      528 + g          592 + 8s      848 + 4j
//   iq1_s    bit 0   16 + 8g      272 + 16b+3g     (287 + 16b)   284 + 16b
//   iq1_m    spread  8g           256 + 4g         (259 + 4g)    384 + 16q+3r
//
// b counts 32 weights, j sub-blocks, g groups of an index (where b stands beside
// it, within the 32), s groups of 8 weights; q = j / 4, r = j % 4. In brackets
// the sign of the eighth that is added to each weight. iq1_m has its d in the
// highest four bits of four 16-bit words from bit 384 on. Signs of seven bits
// have an even number of ones with the eighth.
#pragma once

#include <cstdint>
#include <span>

#include "compress/core/ggml/ggml_block.h"

namespace llmpress {

GgmlBlock unpack_grid_block(GgmlType type,
                            std::span<const std::uint8_t> octets);
// Codes that are no points of the grid, or signs that its seven bits do not
// say, are a bug of the caller: std::logic_error. `octets` come as zeros.
void pack_grid_block(GgmlType type, const GgmlBlock& block,
                     std::span<std::uint8_t> octets);

}  // namespace llmpress
