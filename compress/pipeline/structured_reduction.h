// A block without some of its units: rows and columns of its Linears, biases
// and norm gains taken out. Dense weights in, dense weights out; what stays is
// not changed.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/dense_block.h"
#include "pruning/gqa_grouping.h"
#include "pruning/importance.h"

namespace llmpress {

// Indices into BlockSpec::linears by what they are for.
struct BlockRoles {
  std::size_t q = 0, k = 0, v = 0, o = 0;
  std::vector<std::size_t> mlp_in{};  // gate and up
  std::size_t down = 0;
};
BlockRoles roles_of(const BlockSpec& block);
std::size_t stage_index(const BlockSpec& block, StageKind kind);

// The block with every Linear ready to be cut: dense, in the type that it will
// be written in. Throws Error(kUnsupported) for a Linear that rotates its input
// at inference.
DenseBlock ready_to_cut(DenseBlock block, const Architecture& arch,
                        std::size_t layer);

// `kept` ascending.
void keep_ffn_channels(const Architecture& arch,
                       std::span<const std::size_t> kept, DenseBlock& block);
// Key/value heads with the query heads that read them.
void keep_head_groups(const Architecture& arch,
                      std::span<const std::size_t> kept, DenseBlock& block);
// Channels of the residual stream; gains of the norms before attention and MLP
// are multiplied by the scales.
struct GainScales {
  double attention = 1, mlp = 1;
};
void keep_hidden_channels(const Architecture& arch,
                          std::span<const std::size_t> kept,
                          const GainScales& scales, DenseBlock& block);

// Key/value heads merged into `kv_heads`; S [hidden, hidden] of the attention's
// input, empty: by mean pooling. Returns the shares of energy lost.
struct MergeLoss {
  double keys = 0, values = 0;
};
MergeLoss merge_heads(const Architecture& arch, std::size_t kv_heads,
                      ConstMatrixView S, ThreadPool& pool, DenseBlock& block);

// What goes with a unit, for weight_importance().
std::vector<UnitSlice> ffn_slices(const Architecture& arch,
                                  const DenseBlock& block);
std::vector<UnitSlice> head_group_slices(const Architecture& arch,
                                         const DenseBlock& block);
std::vector<UnitSlice> hidden_slices(const Architecture& arch,
                                     const DenseBlock& block);

}  // namespace llmpress
