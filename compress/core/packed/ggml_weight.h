// Blocks of a GGUF type (ggml_block.h): rows of whole blocks, each with scales
// of its own.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/ggml/ggml_type.h"

namespace llmpress {

class PackedChecker;

struct GgmlWeight {
  std::size_t out = 0, in = 0;  // `in` is a multiple of the block's elements
  GgmlType type = GgmlType::kQ8_0;
  std::vector<std::byte> blocks{};  // [out, in / elements] blocks

  std::size_t row_bytes() const {
    return in / facts(type).elements * facts(type).bytes;
  }
  std::span<const std::byte> row(std::size_t o) const {
    return std::span(blocks).subspan(o * row_bytes(), row_bytes());
  }
};

// Facts that packed_weight.h asks of every type.
void decode_row(const GgmlWeight& w, std::size_t o, std::span<float> row);
std::size_t stored_bytes(const GgmlWeight& w);
std::string describe(const GgmlWeight& w);
void check(const GgmlWeight& w, const PackedChecker& c);
// Scales lie in the blocks.
inline std::span<const float> scales_of(const GgmlWeight&) { return {}; }
inline DType scale_type_of(const GgmlWeight&) { return DType::kF16; }

}  // namespace llmpress
