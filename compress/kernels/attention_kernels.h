// One task of attention.h for one instruction set.
#pragma once

#include <cstddef>

#include "compress/kernels/attention.h"

namespace llmpress {

// Queries [first_query, first_query + queries) of a segment, with query heads
// [first_head, first_head + heads), which share the key/value head kv_head.
struct AttentionTask {
  const AttentionSegment* segment = nullptr;
  std::size_t first_query = 0, queries = 0;
  std::size_t first_head = 0, heads = 0, kv_head = 0;
};

// queries * heads of a task at most.
inline constexpr std::size_t kAttentionRows = 64;

// The first key that the query at `position` sees.
std::size_t first_key(const AttentionConfig& config, std::size_t position);

using AttendFunction = void (*)(ConstMatrixView Q, const AttentionConfig&,
                                const AttentionTask&, MatrixView<float> O);

AttendFunction attend_function(Isa isa);
void attend_avx2(ConstMatrixView Q, const AttentionConfig& config,
                 const AttentionTask& task, MatrixView<float> O);
void attend_avx512(ConstMatrixView Q, const AttentionConfig& config,
                   const AttentionTask& task, MatrixView<float> O);

}  // namespace llmpress
