#include "compress/model/training/attention_values.h"

#include <variant>

#include "compress/core/formatted.h"

namespace llmpress {

std::optional<AttentionValues> attention_values(const BlockSpec& block) {
  for (const Operation& op : block.operations) {
    const auto* const attention = std::get_if<AttentionOp>(&op.kind);
    if (attention == nullptr || attention->shared_layer) continue;
    return AttentionValues{op.in.at(0), op.in.at(1), op.in.at(2),
                           attention->kv_heads};
  }
  return std::nullopt;
}

AttentionRows attention_rows(const Block& block, const BlockPass& pass) {
  const auto found = attention_values(block.spec());
  if (!found) {
    fail(ErrorCode::kUnsupported,
         "block {} has no attention of its own to compare", block.layer());
  }
  return {pass.values[found->queries].rows, pass.values[found->keys].rows,
          pass.values[found->values].rows};
}

}  // namespace llmpress
