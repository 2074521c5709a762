#include "compress/model/ops/attention.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "compress/core/hadamard.h"
#include "compress/core/matrix_reuse.h"
#include "compress/kernels/attention_backward.h"
#include "compress/model/kv_rounding.h"
#include "compress/model/ops/attention_prefix.h"

namespace llmpress {
namespace {

struct KeyValues {
  MatrixF keys, values;
};

// Those of a segment that stands alone behind a prefix.
KeyValues expose_behind_prefix(const AttentionOp& op, const OpContext& context,
                               ConstMatrixView K, ConstMatrixView V,
                               AttentionSegment& to) {
  const KvPrefix& prefix = context.prefix[op.slot];
  KeyValues all{behind_prefix(prefix.keys.view(), K),
                behind_prefix(prefix.values.view(), V)};
  round_kv_in_place(context.kv, op.head_dim, all.keys.view());
  round_kv_in_place(context.kv, op.value_dim, all.values.view());
  to.keys = kv_view(all.keys.view());
  to.values = kv_view(all.values.view());
  return all;  // moving a Matrix keeps its buffer
}

// Stores new rows K, V of a segment and points `to` at all its keys and values
// as they read back; returns what had to be decoded for it.
KeyValues expose_key_values(const AttentionOp& op, const OpContext& context,
                            const Segment& segment, MatrixView<float> K,
                            MatrixView<float> V, AttentionSegment& to) {
  if (segment.cache == nullptr && !context.prefix.empty()) {
    return expose_behind_prefix(op, context, K, V, to);
  }
  if (segment.cache == nullptr) {
    round_kv_in_place(context.kv, op.head_dim, K);
    round_kv_in_place(context.kv, op.value_dim, V);
    to.keys = kv_view(K);
    to.values = kv_view(V);
    return {};
  }
  const CachePlace place{op.shared_layer.value_or(context.layer), op.slot};
  // Where the layer that they are of is in another process, each layer that
  // reads them stores them, over the same of the one before.
  if (place.layer == context.layer || place.layer < context.first_layer) {
    segment.cache->append(place, K, V);
  }
  if (segment.cache->format().type == KvType::kF32) {
    to.keys = segment.cache->keys(place);
    to.values = segment.cache->values(place);
    return {};
  }
  const std::size_t rows = segment.past + segment.rows;
  KeyValues decoded{MatrixF(rows, K.cols()), MatrixF(rows, V.cols())};
  segment.cache->read(place, 0, decoded.keys.view(), decoded.values.view());
  to.keys = kv_view(decoded.keys.view());
  to.values = kv_view(decoded.values.view());
  return decoded;  // moving a Matrix keeps its buffer
}

// Whether run() changes none of the rows that it reads.
bool only_reads(const OpContext& context) {
  return context.kv_scheme == nullptr && context.kv_ranges == nullptr &&
         !context.kv.rotate_keys && context.kv.type == KvType::kF32 &&
         context.prefix.empty() &&
         std::ranges::all_of(context.segments, [](const Segment& segment) {
           return segment.cache == nullptr;
         });
}

AttentionConfig config_of(const AttentionOp& op, const OpContext& context) {
  const auto parameter = [&](const std::optional<std::size_t>& index) {
    return index ? std::span<const float>(context.parameters[*index])
                 : std::span<const float>();
  };
  return {.heads = op.heads,
          .kv_heads = op.kv_heads,
          .head_dim = op.head_dim,
          .value_dim = op.value_dim,
          .scale = op.scale,
          .window = op.window,
          .chunk = op.chunk,
          .softcap = op.softcap,
          .sinks = parameter(op.sinks),
          .slopes = parameter(op.slopes),
          .dropout = context.attention_dropout.of(op.slot)};
}

// Segments that stand alone, their keys and values read where they lie.
void run_in_place(const AttentionOp& op, const OpContext& context,
                  const OpArguments& arguments) {
  const ConstMatrixView Q = arguments.input(0), K = arguments.input(1),
                        V = arguments.input(2);
  std::vector<AttentionSegment> attended;
  std::size_t row = 0;
  for (const Segment& segment : context.segments) {
    attended.push_back({.first_query = row,
                        .queries = segment.rows,
                        .past = segment.past,
                        .keys = kv_view(K.rows_slice(row, segment.rows)),
                        .values = kv_view(V.rows_slice(row, segment.rows))});
    row += segment.rows;
  }
  MatrixF mixed = unset_matrix(Q.rows(), op.heads * op.value_dim);
  attention(Q, attended, config_of(op, context), mixed.view(), *context.pool,
            context.isa);
  arguments.put(std::move(mixed));
}

void apply_scheme(const AttentionOp& op, const OpContext& context, MatrixF& K,
                  MatrixF& V) {
  if (context.kv_scheme == nullptr) return;
  std::size_t first = 0;
  for (const Segment& segment : context.segments) {
    apply_kv_scheme_in_place(*context.kv_scheme, op.kv_heads,
                             K.view().rows_slice(first, segment.rows),
                             V.view().rows_slice(first, segment.rows));
    first += segment.rows;
  }
}

// Keys and values of segments that stand alone, as attention saw them.
KeyValues rounded_key_values(const AttentionOp& op, const OpContext& context,
                             ConstMatrixView K, ConstMatrixView V) {
  KeyValues rounded{MatrixF(K), MatrixF(V)};
  apply_scheme(op, context, rounded.keys, rounded.values);
  round_kv_in_place(context.kv, op.head_dim, rounded.keys.view());
  round_kv_in_place(context.kv, op.value_dim, rounded.values.view());
  return rounded;
}

KvPrefix rounded_prefix(const AttentionOp& op, const OpContext& context) {
  KvPrefix prefix = context.prefix[op.slot];
  round_kv_in_place(context.kv, op.head_dim, prefix.keys.view());
  round_kv_in_place(context.kv, op.value_dim, prefix.values.view());
  return prefix;
}

}  // namespace

void run(const AttentionOp& op, const OpContext& context,
         const OpArguments& arguments) {
  if (only_reads(context)) return run_in_place(op, context, arguments);
  MatrixF Q = arguments.take(0), K = arguments.take(1), V = arguments.take(2);
  if (context.kv_ranges != nullptr) {
    widen((*context.kv_ranges)[op.slot], K.view(), V.view());
  }
  apply_scheme(op, context, K, V);
  if (context.kv.rotate_keys) {
    hadamard_rows_in_place(Q.view(), op.head_dim, *context.pool);
    hadamard_rows_in_place(K.view(), op.head_dim, *context.pool);
  }
  const auto segments = context.segments;
  std::vector<AttentionSegment> attended(segments.size());
  std::size_t row = 0;
  for (std::size_t s = 0; s < segments.size(); row += segments[s++].rows) {
    attended[s].first_query = row;
    attended[s].queries = segments[s].rows;
    attended[s].past = segments[s].past;
  }
  std::vector<KeyValues> decoded(segments.size());
  context.pool->for_each(segments.size(), [&](std::size_t s) {
    decoded[s] = expose_key_values(
        op, context, segments[s],
        K.view().rows_slice(attended[s].first_query, segments[s].rows),
        V.view().rows_slice(attended[s].first_query, segments[s].rows),
        attended[s]);
  });
  MatrixF mixed(Q.rows(), op.heads * op.value_dim);
  attention(Q.view(), attended, config_of(op, context), mixed.view(),
            *context.pool, context.isa);
  arguments.put(std::move(mixed));
}

void backward(const AttentionOp& op, const OpContext& context,
              const OpGradients& gradients) {
  std::vector<std::size_t> sequences;
  for (const Segment& segment : context.segments) {
    sequences.push_back(segment.rows);
  }
  // All three or none are read by whatever comes before.
  std::vector<MatrixF> unwanted(3);
  const auto to_add = [&](std::size_t i) {
    if (gradients.wants(i)) return gradients.to_add(i);
    const MatrixF& x = gradients.in[i]->rows;
    unwanted[i] = MatrixF(x.rows(), x.cols());
    return unwanted[i].view();
  };
  KeyValues rounded;  // gradients pass straight through (arXiv:1308.3432)
  ConstMatrixView K = gradients.input(1), V = gradients.input(2);
  if (context.kv_scheme != nullptr || context.kv.type != KvType::kF32) {
    rounded = rounded_key_values(op, context, K, V);
    K = std::as_const(rounded.keys).view();
    V = std::as_const(rounded.values).view();
  }
  const AttentionPass pass{.Q = gradients.input(0),
                           .K = K,
                           .V = V,
                           .O = gradients.out[0]->rows.view()};
  const AttentionGradients to{
      .dQ = to_add(0),
      .dK = to_add(1),
      .dV = to_add(2),
      .sinks = op.sinks ? gradients.parameter(*op.sinks) : std::span<float>()};
  if (context.prefix.empty()) {
    return attention_backward(pass, gradients.gradient(), sequences,
                              config_of(op, context), to, *context.pool,
                              context.isa);
  }
  BlockPrefix& own = gradients.own->prefix;
  attention_backward_behind(
      rounded_prefix(op, context), pass, gradients.gradient(), context.segments,
      config_of(op, context), to, own.empty() ? nullptr : &own[op.slot],
      *context.pool, context.isa);
}

}  // namespace llmpress
