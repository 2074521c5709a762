#include "compress/model/prefix_places.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"

namespace llmpress {

void check_prefix_possible(const Architecture& arch, std::size_t layer) {
  const BlockSpec& block = arch.block(layer);
  const bool recurrent = std::ranges::any_of(
      block.slots, [](const CacheSlot& slot) { return slot.kv_heads == 0; });
  const bool shared =
      std::ranges::any_of(block.operations, [](const Operation& op) {
        const auto* const attention = std::get_if<AttentionOp>(&op.kind);
        return attention != nullptr && attention->shared_layer.has_value();
      });
  if (!recurrent && !shared && !block.slots.empty()) return;
  fail(ErrorCode::kUnsupported,
       "{}: no keys and values can stand before its sequences: it {}",
       arch.block_name(layer),
       recurrent ? "keeps a recurrent state"
       : shared  ? "reads those of another layer"
                 : "has no attention");
}

PrefixShape uniform_prefix_shape(const Architecture& arch) {
  PrefixShape shape;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    check_prefix_possible(arch, layer);
    const std::vector<CacheSlot>& slots = arch.block(layer).slots;
    const CacheSlot& slot = slots.front();
    if (layer == 0) shape = {slot.kv_heads, slot.key_dim};
    if (slots.size() == 1 && slot.key_dim == slot.value_dim &&
        slot.kv_heads == shape.kv_heads && slot.key_dim == shape.head_dim) {
      continue;
    }
    fail(ErrorCode::kUnsupported,
         "{}: {} attentions with keys of {} heads of {} and values of {}; a "
         "prefix wants one attention of the same shape in every block, values "
         "as wide as keys",
         arch.block_name(layer), slots.size(), slot.kv_heads, slot.key_dim,
         slot.value_dim);
  }
  return shape;
}

void check_prompt_possible(const Architecture& arch) {
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    check_prefix_possible(arch, layer);
  }
  const char* const more =
      arch.embedding_scale != 1            ? "are scaled"
      : !arch.position_embedding.empty()   ? "get embeddings of positions"
      : !arch.embedding_projection.empty() ? "are projected"
      : !arch.embedding_norm.empty()       ? "pass a norm"
      : arch.layer_inputs.width != 0       ? "have inputs of every layer"
                                           : nullptr;
  if (more == nullptr) return;
  fail(ErrorCode::kUnsupported,
       "{}: rows of an embedding {}: virtual tokens have no such rows in this "
       "version",
       arch.model_type, more);
}

std::vector<BlockPrefix> prefix_of(const Checkpoint& checkpoint,
                                   const Architecture& arch, BlockState stream,
                                   Isa isa, ThreadPool& pool) {
  const Segment all{.rows = stream.hidden.rows()};
  const RopeTablesOfModel ropes = make_ropes(arch);
  std::vector<BlockPrefix> prefix;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    check_prefix_possible(arch, layer);
    const BlockSpec& spec = arch.block(layer);
    const Block block(arch, layer, read_block(checkpoint, arch, layer),
                      BlockOptions{.isa = isa, .ropes = ropes});
    BlockPass pass = block.run_keeping({&all, 1}, stream, pool);
    BlockPrefix& held = prefix.emplace_back(spec.slots.size());
    for (const Operation& op : spec.operations) {
      const auto* const attention = std::get_if<AttentionOp>(&op.kind);
      if (attention == nullptr) continue;
      held.at(attention->slot) = {.keys = pass.values[op.in[1]].rows,
                                  .values = pass.values[op.in[2]].rows};
    }
  }
  return prefix;
}

}  // namespace llmpress
