// A block without some of its units: rows and columns of its Linears, biases
// and norm gains taken out. Dense weights in, dense weights out; what stays is
// not changed.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/calibration/dense_block.h"
#include "compress/core/parallel.h"
#include "compress/model/facts.h"
#include "pruning/gqa_grouping.h"
#include "pruning/importance.h"

namespace llmpress {

// The block with every Linear ready to be cut: dense, in the type that it will
// be written in. Throws Error(kUnsupported) for a Linear that rotates its input
// at inference.
DenseBlock ready_to_cut(DenseBlock block, const Architecture& arch,
                        std::size_t layer);

// `kept` ascending, of units.count.
void keep_units(const BlockUnits& units, std::span<const std::size_t> kept,
                DenseBlock& block);
// `kept` ascending, of the mixture's experts: rows of the router with its biases
// too, and the Linears of the others taken out of the list.
void keep_experts(const ExpertUnits& units, std::span<const std::size_t> kept,
                  DenseBlock& block);
// Channels of the residual stream; the gain of each norm that reads it is
// multiplied by its scale, scales[reader].
void keep_hidden_channels(const BlockSpec& spec,
                          std::span<const std::size_t> kept,
                          std::span<const double> scales, DenseBlock& block);

// Key/value heads merged into `kv_heads`; S [hidden, hidden] of the attention's
// input, empty: by mean pooling. Returns the shares of energy lost.
struct MergeLoss {
  double keys = 0, values = 0;
};
MergeLoss merge_heads(const BlockSpec& spec, std::size_t kv_heads,
                      ConstMatrixView S, ThreadPool& pool, DenseBlock& block);

// L2 norms of what goes with each unit, and of the rows and columns of each
// channel of the residual stream.
std::vector<double> unit_weight_importance(const BlockUnits& units,
                                           const DenseBlock& block);
std::vector<double> hidden_weight_importance(const BlockSpec& spec,
                                             const DenseBlock& block);

}  // namespace llmpress
