// Attention in reverse where keys and values stand before every segment
// (kv_prefix.h).
#pragma once

#include <span>

#include "compress/kernels/attention_backward.h"
#include "compress/model/kv_prefix.h"
#include "compress/model/ops/op_context.h"

namespace llmpress {

// [prefix; rows].
MatrixF behind_prefix(ConstMatrixView prefix, ConstMatrixView rows);

// attention_backward() of segments that stand alone behind `prefix`, P rows of
// keys and values; `own` is added to where it is not null. The prefix's rows go
// through the kernel as tokens whose queries ask nothing and whose outputs
// nobody reads: P rows more a segment.
void attention_backward_behind(const KvPrefix& prefix,
                               const AttentionPass& pass, ConstMatrixView dO,
                               std::span<const Segment> segments,
                               const AttentionConfig& config,
                               const AttentionGradients& gradients,
                               KvPrefix* own, ThreadPool& pool, Isa isa);

}  // namespace llmpress
