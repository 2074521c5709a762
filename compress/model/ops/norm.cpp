#include "compress/model/ops/norm.h"

#include "compress/kernels/norms.h"
#include "compress/kernels/norms_backward.h"

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
  const ConstMatrixView X = arguments.input(0);
  MatrixF Y = arguments.output_like(0);
  const std::size_t unit = op.unit == 0 ? X.cols() : op.unit;
  const ConstMatrixView units(X.data(), X.size() / unit, unit);
  const MatrixView<float> to(Y.data(), Y.size() / unit, unit);
  const bool shared = weights.gain.size() == unit;
  std::vector<float> ones;
  if (!shared) ones.assign(unit, 1.0f);
  const std::span<const float> gain = shared ? weights.gain : ones;
  const std::span<const float> bias =
      shared ? std::span<const float>(weights.bias) : std::span<const float>();
  switch (op.kind) {
    case NormKind::kRms:
      rms_norm(units, gain, op.epsilon, to, *context.pool);
      break;
    case NormKind::kLayer:
      layer_norm(units, gain, bias, op.epsilon, to, *context.pool);
      break;
  }
  if (!shared && op.norm) apply_weights(weights, Y.view());
  arguments.put(std::move(Y));
}

void backward(const NormOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView X = gradients.input(0), dY = gradients.gradient();
  const std::size_t unit = op.unit == 0 ? X.cols() : op.unit;
  const std::vector<float> ones(op.norm ? 0 : unit, 1.0f);
  NormPass pass{.X = {X.data(), X.size() / unit, unit},
                .gain = ones,
                .epsilon = op.epsilon,
                .centred = op.kind == NormKind::kLayer};
  NormSums sums;
  if (op.norm) {
    pass.gain = context.norms[*op.norm].gain;
    if (!gradients.own->norms.empty()) {
      sums.gain = gradients.own->norms[*op.norm].gain;
      sums.bias = gradients.own->norms[*op.norm].bias;
    }
  }
  if (const auto dX = gradients.to_add(0); dX.size() != 0) {
    sums.dX = {dX.data(), pass.X.rows(), unit};
  }
  norm_backward(pass, {dY.data(), pass.X.rows(), unit}, sums, *context.pool);
}

}  // namespace llmpress
