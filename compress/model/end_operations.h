// What a model computes around its blocks, alike where it infers and where it
// learns.
#pragma once

#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/model/norm_weights.h"
#include "compress/model/ops/op_context.h"

namespace llmpress {

// `norm` as it multiplies; X [rows, width of the gain].
MatrixF apply_norm(ConstMatrixView X, const NormWeights& norm,
                   const NormOptions& options, ThreadPool& pool);

// X [tokens, hidden] += the embeddings of the tokens' positions, rows of `table`
// from position_offset on. Throws Error(kInvalidInput) past its end.
void add_positions(const Architecture& arch, ConstMatrixView table,
                   std::span<const Segment> segments, MatrixF& X);

// See LayerInputs: what the projection is multiplied by in front of its norm,
// and P [tokens, layers * width] behind it: (P + sqrt(width) table) / sqrt(2).
float layer_projection_scale(const Architecture& arch);
void add_layer_table(const Architecture& arch, ConstMatrixView table,
                     MatrixView<float> P);

// logits <- softcap(logit_scale * logits).
void finish_logits(const Architecture& arch, MatrixView<float> logits);

}  // namespace llmpress
