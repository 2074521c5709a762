// Keys and values as a checkpoint's kv_cache_scheme rounds them, before they
// are stored or attended to:
//   x' = s round(clamp(x / s)),  s static, or found over the rows at hand
#pragma once

#include <cstddef>
#include <map>

#include "compress/core/matrix.h"
#include "formats/linears/kv_scheme.h"

namespace llmpress {

// The largest magnitudes that an attention module's keys (after the rotary
// embedding) and values reached.
struct KvRange {
  float keys = 0, values = 0;
};
using KvRanges = std::map<std::size_t, KvRange>;  // by the slot of its cache

void widen(KvRange& range, MatrixView<float> K, MatrixView<float> V);

// New keys K and values V [tokens, kv_heads * head_dim] of one sequence, after
// the rotary embedding. Throws Error(kInvalidInput) if the scheme has scales
// for another number of heads.
void apply_kv_scheme_in_place(const KvScheme& scheme, std::size_t kv_heads,
                              MatrixView<float> K, MatrixView<float> V);

}  // namespace llmpress
