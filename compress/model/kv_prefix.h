// Keys and values that stand before every sequence, as if tokens had been read
// before it (prefix tuning, arXiv:2101.00190): the sequence's own tokens begin
// at the position behind them and see all of them. Keys are as the cache holds
// them, behind rotary embeddings.
#pragma once

#include <vector>

#include "compress/core/matrix.h"

namespace llmpress {

// What one attention of a block finds before every sequence; rows are virtual
// tokens.
struct KvPrefix {
  MatrixF keys{}, values{};  // [virtual tokens, kv_heads * dim]
};

// By slot of the block's cache; empty: no prefix.
using BlockPrefix = std::vector<KvPrefix>;

}  // namespace llmpress
