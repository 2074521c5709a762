// Where keys and values can stand before the sequences of a model
// (kv_prefix.h), and those that a text has.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "compress/model/decoder.h"
#include "compress/model/kv_prefix.h"

namespace llmpress {

// Throws Error(kUnsupported) with the block's name for one that keeps more of a
// sequence than the keys and values of its own attention: a recurrent state, or
// those of another layer.
void check_prefix_possible(const Architecture& arch, std::size_t layer);

// Keys and values of a virtual token where all blocks have the same.
struct PrefixShape {
  std::size_t kv_heads = 0, head_dim = 0;

  std::size_t width() const { return kv_heads * head_dim; }
};
// Throws Error(kUnsupported) with the block's name where a block has no prefix
// or one of another shape, or values are not as wide as keys.
PrefixShape uniform_prefix_shape(const Architecture& arch);

// Throws Error(kUnsupported) for a model that does more to tokens than to look
// up their embedding, or keeps a recurrent state: rows of its stream cannot
// stand for tokens.
void check_prompt_possible(const Architecture& arch);

// What the blocks [layers] hold of `stream` [tokens, hidden] at positions 0, 1,
// ...; a block is loaded at a time.
std::vector<BlockPrefix> prefix_of(const Checkpoint& checkpoint,
                                   const Architecture& arch, BlockState stream,
                                   Isa isa, ThreadPool& pool);

}  // namespace llmpress
