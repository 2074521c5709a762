// What the attention of a block reads, token by token, to be compared with
// another model's.
#pragma once

#include <optional>

#include "compress/model/block.h"

namespace llmpress {

// The queries, keys and values of a block's first attention, as it reads them
// (behind rotary embeddings and norms of heads).
struct AttentionValues {
  ValueId queries = 0, keys = 0, values = 0;
  std::size_t kv_heads = 1;
};

// Nothing for a block without attention, or with keys of another layer.
std::optional<AttentionValues> attention_values(const BlockSpec& block);

// Copies of them: [tokens, heads * dim] each.
struct AttentionRows {
  MatrixF queries{}, keys{}, values{};
};

// Of a pass that was kept. Throws Error(kUnsupported) for a block without.
AttentionRows attention_rows(const Block& block, const BlockPass& pass);

}  // namespace llmpress
