#include "compress/pipeline/structured_reduction.h"

#include <algorithm>
#include <stdexcept>

#include "compress/core/error.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

void keep_rows(DenseLinear& linear, std::span<const std::size_t> rows) {
  linear.W = select_rows(linear.W.view(), rows);
  if (!linear.stored.bias.empty()) {
    linear.stored.bias = select_values(linear.stored.bias, rows);
  }
}

void keep_columns(DenseLinear& linear, std::span<const std::size_t> columns) {
  linear.W = select_columns(linear.W.view(), columns);
}

void keep_gain(NormWeights& norm, std::span<const std::size_t> kept,
               double scale) {
  norm.gain = select_values(norm.gain, kept);
  for (float& g : norm.gain) {
    g = static_cast<float>(static_cast<double>(g) * scale);
  }
  if (!norm.bias.empty()) norm.bias = select_values(norm.bias, kept);
}

}  // namespace

std::size_t stage_index(const BlockSpec& block, StageKind kind) {
  for (std::size_t s = 0; s < block.stages.size(); ++s) {
    if (block.stages[s].kind == kind) return s;
  }
  throw std::logic_error("stage_index: a block without the stage");
}

BlockRoles roles_of(const BlockSpec& block) {
  const auto linears = [&](StageKind kind) -> const std::vector<std::size_t>& {
    return block.stages[stage_index(block, kind)].linears;
  };
  const auto& attention = linears(StageKind::kAttentionInput);
  return {.q = attention.at(0),
          .k = attention.at(1),
          .v = attention.at(2),
          .o = linears(StageKind::kAttentionOutput).at(0),
          .mlp_in = linears(StageKind::kMlpInput),
          .down = linears(StageKind::kMlpOutput).at(0)};
}

DenseBlock ready_to_cut(DenseBlock block, const Architecture& arch,
                        std::size_t layer) {
  for (std::size_t l = 0; l < block.linears.size(); ++l) {
    DenseLinear& linear = block.linears[l];
    if (linear.stored.input_hadamard != 0) {
      throw Error(ErrorCode::kUnsupported,
                  arch.linear_name(layer, l) +
                      ": its input is rotated at inference, so no channel of "
                      "it can go; prune first, then rotate");
    }
    linear.stored.input = {};
    linear.changed = true;
  }
  return block;
}

void keep_ffn_channels(const Architecture& arch,
                       std::span<const std::size_t> kept, DenseBlock& block) {
  const BlockRoles roles = roles_of(arch.block);
  for (const std::size_t l : roles.mlp_in) keep_rows(block.linears[l], kept);
  keep_columns(block.linears[roles.down], kept);
}

void keep_head_groups(const Architecture& arch,
                      std::span<const std::size_t> kept, DenseBlock& block) {
  const BlockRoles roles = roles_of(arch.block);
  const auto kv = expand_units(kept, arch.head_dim);
  const auto query =
      expand_units(kept, arch.heads / arch.kv_heads * arch.head_dim);
  keep_rows(block.linears[roles.q], query);
  keep_rows(block.linears[roles.k], kv);
  keep_rows(block.linears[roles.v], kv);
  keep_columns(block.linears[roles.o], query);
}

void keep_hidden_channels(const Architecture& arch,
                          std::span<const std::size_t> kept,
                          const GainScales& scales, DenseBlock& block) {
  const BlockRoles roles = roles_of(arch.block);
  for (const std::size_t l : {roles.q, roles.k, roles.v}) {
    keep_columns(block.linears[l], kept);
  }
  for (const std::size_t l : roles.mlp_in) keep_columns(block.linears[l], kept);
  keep_rows(block.linears[roles.o], kept);
  keep_rows(block.linears[roles.down], kept);
  keep_gain(block.norms.at(arch.block.attention_norm), kept, scales.attention);
  keep_gain(block.norms.at(arch.block.mlp_norm), kept, scales.mlp);
}

MergeLoss merge_heads(const Architecture& arch, std::size_t kv_heads,
                      ConstMatrixView S, ThreadPool& pool, DenseBlock& block) {
  const BlockRoles roles = roles_of(arch.block);
  DenseLinear& q = block.linears[roles.q];
  DenseLinear& k = block.linears[roles.k];
  DenseLinear& v = block.linears[roles.v];
  DenseLinear& o = block.linears[roles.o];
  const AttentionWeights weights{.q = q.W,
                                 .k = k.W,
                                 .v = v.W,
                                 .o = o.W,
                                 .q_bias = q.stored.bias,
                                 .k_bias = k.stored.bias,
                                 .v_bias = v.stored.bias};
  const AttentionShape shape{.heads = arch.heads,
                             .kv_heads = arch.kv_heads,
                             .head_dim = arch.head_dim,
                             .pairs = RotaryPairs::kHalves,
                             .rotary_dim = 0};
  GroupedAttention grouped =
      S.rows() == 0
          ? group_kv_heads_by_mean(weights, shape, kv_heads)
          : group_kv_heads_calibrated(weights, shape, kv_heads, S, pool);
  AttentionWeights& merged = grouped.weights;
  q.W = std::move(merged.q);
  k.W = std::move(merged.k);
  v.W = std::move(merged.v);
  o.W = std::move(merged.o);
  q.stored.bias = std::move(merged.q_bias);
  k.stored.bias = std::move(merged.k_bias);
  v.stored.bias = std::move(merged.v_bias);
  return {grouped.key_loss, grouped.value_loss};
}

std::vector<UnitSlice> ffn_slices(const Architecture& arch,
                                  const DenseBlock& block) {
  const BlockRoles roles = roles_of(arch.block);
  std::vector<UnitSlice> slices;
  for (const std::size_t l : roles.mlp_in) {
    slices.push_back({.W = block.linears[l].W.view()});
  }
  slices.push_back(
      {.W = block.linears[roles.down].W.view(), .axis = UnitAxis::kColumns});
  return slices;
}

std::vector<UnitSlice> head_group_slices(const Architecture& arch,
                                         const DenseBlock& block) {
  const BlockRoles roles = roles_of(arch.block);
  const std::size_t query = arch.heads / arch.kv_heads * arch.head_dim;
  return {{.W = block.linears[roles.q].W.view(), .width = query},
          {.W = block.linears[roles.k].W.view(), .width = arch.head_dim},
          {.W = block.linears[roles.v].W.view(), .width = arch.head_dim},
          {.W = block.linears[roles.o].W.view(),
           .axis = UnitAxis::kColumns,
           .width = query}};
}

std::vector<UnitSlice> hidden_slices(const Architecture& arch,
                                     const DenseBlock& block) {
  const BlockRoles roles = roles_of(arch.block);
  std::vector<UnitSlice> slices{{.W = block.linears[roles.o].W.view()},
                                {.W = block.linears[roles.down].W.view()}};
  std::vector<std::size_t> readers{roles.q, roles.k, roles.v};
  readers.insert(readers.end(), roles.mlp_in.begin(), roles.mlp_in.end());
  for (const std::size_t l : readers) {
    slices.push_back(
        {.W = block.linears[l].W.view(), .axis = UnitAxis::kColumns});
  }
  return slices;
}

}  // namespace llmpress
