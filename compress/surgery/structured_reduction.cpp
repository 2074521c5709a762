#include "compress/surgery/structured_reduction.h"

#include <map>
#include <utility>

#include "compress/core/formatted.h"
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
    g = scaled_gain(g, norm.offset, scale);
  }
  if (!norm.bias.empty()) norm.bias = select_values(norm.bias, kept);
}

// The indices of `part` that belong to units that go.
std::vector<bool> removed_indices(const UnitPart& part,
                                  std::span<const std::size_t> kept,
                                  std::size_t count, std::size_t size) {
  std::vector<bool> stays(count, false), removed(size, false);
  for (const std::size_t unit : kept) stays[unit] = true;
  for (std::size_t i = 0; i < part.index.size(); ++i) {
    if (!stays[i / part.width]) removed[part.index[i]] = true;
  }
  return removed;
}

std::vector<std::size_t> complement_of(const std::vector<bool>& removed) {
  std::vector<std::size_t> left;
  for (std::size_t i = 0; i < removed.size(); ++i) {
    if (!removed[i]) left.push_back(i);
  }
  return left;
}

}  // namespace

DenseBlock ready_to_cut(DenseBlock block, const Architecture& arch,
                        std::size_t layer) {
  for (std::size_t l = 0; l < block.linears.size(); ++l) {
    DenseLinear& linear = block.linears[l];
    if (linear.stored.input_hadamard != 0) {
      fail(ErrorCode::kUnsupported,
           "{}: its input is rotated at inference, so no channel of it can go; "
           "prune first, then rotate",
           arch.linear_name(layer, l));
    }
    linear.stored.input = {};
    linear.changed = true;
  }
  return block;
}

void keep_units(const BlockUnits& units, std::span<const std::size_t> kept,
                DenseBlock& block) {
  // Parts may lie in one Linear (a fused one): all rows and columns that go are
  // known before the first is taken out.
  std::map<std::pair<std::size_t, WeightAxis>, std::vector<bool>> gone;
  for (const UnitPart& part : units.parts) {
    const MatrixF& W = block.linears[part.linear].W;
    const std::size_t size =
        part.axis == WeightAxis::kRows ? W.rows() : W.cols();
    const auto removed = removed_indices(part, kept, units.count, size);
    auto& of_linear = gone[{part.linear, part.axis}];
    of_linear.resize(size, false);
    for (std::size_t i = 0; i < size; ++i) {
      if (removed[i]) of_linear[i] = true;
    }
  }
  for (const auto& [place, removed] : gone) {
    DenseLinear& linear = block.linears[place.first];
    if (place.second == WeightAxis::kRows) {
      keep_rows(linear, complement_of(removed));
    } else {
      keep_columns(linear, complement_of(removed));
    }
  }
}

void keep_experts(const ExpertUnits& units, std::span<const std::size_t> kept,
                  DenseBlock& block) {
  keep_rows(block.linears[units.router], kept);
  if (units.route->bias) {
    std::vector<float>& bias = block.parameters[*units.route->bias];
    bias = select_values(bias, kept);
  }
  std::vector<bool> gone(block.linears.size(), false);
  for (const std::size_t e : complement(kept, units.linears.size())) {
    for (const std::size_t l : units.linears[e]) gone[l] = true;
  }
  std::vector<DenseLinear> left;
  for (const std::size_t l : complement_of(gone)) {
    left.push_back(std::move(block.linears[l]));
  }
  block.linears = std::move(left);
}

void keep_hidden_channels(const BlockSpec& spec,
                          std::span<const std::size_t> kept,
                          std::span<const double> scales, DenseBlock& block) {
  const StreamFacts facts = stream_facts(spec);
  for (std::size_t r = 0; r < facts.readers.size(); ++r) {
    for (const std::size_t l : facts.readers[r].linears) {
      keep_columns(block.linears[l], kept);
    }
    keep_gain(block.norms.at(spec.norms[facts.readers[r].norm].name), kept,
              scales[r]);
  }
  for (const std::size_t l : facts.writers) keep_rows(block.linears[l], kept);
}

MergeLoss merge_heads(const BlockSpec& spec, std::size_t kv_heads,
                      ConstMatrixView S, ThreadPool& pool, DenseBlock& block) {
  const AttentionLinears roles = attention_linears(spec);
  const AttentionOp& attention = *roles.attention;
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
  const AttentionShape shape{.heads = attention.heads,
                             .kv_heads = attention.kv_heads,
                             .head_dim = attention.head_dim,
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

std::vector<double> unit_weight_importance(const BlockUnits& units,
                                           const DenseBlock& block) {
  std::vector<MatrixF> parts;
  std::vector<UnitSlice> slices;
  parts.reserve(units.parts.size());
  for (const UnitPart& part : units.parts) {
    const ConstMatrixView W = block.linears[part.linear].W.view();
    const bool rows = part.axis == WeightAxis::kRows;
    parts.push_back(rows ? select_rows(W, part.index)
                         : select_columns(W, part.index));
    slices.push_back({.W = parts.back().view(),
                      .axis = rows ? UnitAxis::kRows : UnitAxis::kColumns,
                      .width = part.width});
  }
  return weight_importance(slices, units.count);
}

std::vector<double> hidden_weight_importance(const BlockSpec& spec,
                                             const DenseBlock& block) {
  const StreamFacts facts = stream_facts(spec);
  std::vector<UnitSlice> slices;
  for (const std::size_t l : facts.writers) {
    slices.push_back({.W = block.linears[l].W.view()});
  }
  for (const StreamReader& reader : facts.readers) {
    for (const std::size_t l : reader.linears) {
      slices.push_back(
          {.W = block.linears[l].W.view(), .axis = UnitAxis::kColumns});
    }
  }
  return weight_importance(slices, spec.values[0].width);
}

}  // namespace llmpress
