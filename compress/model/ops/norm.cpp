#include "compress/model/ops/norm.h"

#include "compress/kernels/norms.h"

namespace llmpress {
namespace {

// Each unit of a row is multiplied by its own part of the weights.
void apply_weights(const NormWeights& weights, MatrixView<float> X) {
  for (std::size_t r = 0; r < X.rows(); ++r) {
    const auto row = X.row(r);
    for (std::size_t c = 0; c < row.size(); ++c) {
      row[c] *= weights.gain[c];
      if (!weights.bias.empty()) row[c] += weights.bias[c];
    }
  }
}

}  // namespace

void run(const NormOp& op, const OpContext& context,
         const OpArguments& arguments) {
  static const NormWeights kNone;
  const NormWeights& weights = op.norm ? context.norms[*op.norm] : kNone;
  MatrixF X = arguments.take(0);
  const std::size_t width = X.cols();
  const std::size_t unit = op.unit == 0 ? width : op.unit;
  const MatrixView<float> units(X.data(), X.size() / unit, unit);
  const bool shared = weights.gain.size() == unit;
  std::vector<float> ones;
  if (!shared) ones.assign(unit, 1.0f);
  const std::span<const float> gain = shared ? weights.gain : ones;
  const std::span<const float> bias =
      shared ? std::span<const float>(weights.bias) : std::span<const float>();
  switch (op.kind) {
    case NormKind::kRms:
      rms_norm(units, gain, op.epsilon, units, *context.pool);
      break;
    case NormKind::kLayer:
      layer_norm(units, gain, bias, op.epsilon, units, *context.pool);
      break;
  }
  if (!shared && op.norm) apply_weights(weights, X.view());
  arguments.put(std::move(X));
}

}  // namespace llmpress
