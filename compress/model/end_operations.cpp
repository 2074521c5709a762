#include "compress/model/end_operations.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/kernels/norms.h"
#include "compress/model/ops/rope.h"

namespace llmpress {

MatrixF apply_norm(ConstMatrixView X, const NormWeights& norm,
                   const NormOptions& options, ThreadPool& pool) {
  MatrixF Y(X.rows(), X.cols());
  switch (options.kind) {
    case NormKind::kRms:
      rms_norm(X, norm.gain, options.epsilon, Y.view(), pool);
      break;
    case NormKind::kLayer:
      layer_norm(X, norm.gain, norm.bias, options.epsilon, Y.view(), pool);
      break;
  }
  return Y;
}

void add_positions(const Architecture& arch, ConstMatrixView table,
                   std::span<const Segment> segments, MatrixF& X) {
  const std::vector<std::uint32_t> positions = row_positions(segments);
  for (std::size_t t = 0; t < positions.size(); ++t) {
    const std::size_t p = positions[t] + arch.position_offset;
    if (p >= table.rows()) {
      fail(ErrorCode::kInvalidInput,
           "position {}: the model has embeddings of {} positions",
           positions[t], table.rows() - arch.position_offset);
    }
    const auto row = table.row(p);
    for (std::size_t c = 0; c < row.size(); ++c) X(t, c) += row[c];
  }
}

float layer_projection_scale(const Architecture& arch) {
  return 1 / std::sqrt(static_cast<float>(arch.hidden));
}

void add_layer_table(const Architecture& arch, ConstMatrixView table,
                     MatrixView<float> P) {
  const float factor = std::sqrt(static_cast<float>(arch.layer_inputs.width));
  const float after = 1 / std::sqrt(2.0f);
  for (std::size_t i = 0; i < P.size(); ++i) {
    P.data()[i] = (P.data()[i] + factor * table.data()[i]) * after;
  }
}

void finish_logits(const Architecture& arch, MatrixView<float> logits) {
  const float scale = arch.logit_scale, cap = arch.logit_softcap;
  if (scale == 1 && cap == 0) return;
  for (float& z : logits.data()) {
    z *= scale;
    if (cap != 0) z = cap * std::tanh(z / cap);
  }
}

}  // namespace llmpress
