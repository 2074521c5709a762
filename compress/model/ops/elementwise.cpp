#include "compress/model/ops/elementwise.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "compress/kernels/activations_backward.h"
#include "compress/model/ops/rope.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = 16384;

template <class F>
void for_elements(std::size_t size, const OpContext& context, F&& f) {
  context.pool->for_ranges(size, kElementsPerTask,
                           [&](std::size_t begin, std::size_t end) {
                             for (std::size_t i = begin; i < end; ++i) f(i);
                           });
}

// [tokens]
std::vector<float> position_scales(const PositionScaleOp& op,
                                   const OpContext& context) {
  std::vector<float> scales;
  for (const std::uint32_t position : row_positions(context.segments)) {
    const double steps =
        std::floor((position + op.offset) / op.floor_positions);
    scales.push_back(static_cast<float>(1 + static_cast<double>(op.slope) *
                                                std::log1p(steps)));
  }
  return scales;
}

}  // namespace

void run(const ActivationOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF X = arguments.take(0);
  activate_in_place(op.activation, X.view(), *context.pool, context.isa);
  arguments.put(std::move(X));
}

void run(const GateOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView gate = arguments.input(0);
  MatrixF gated = arguments.output_like(0);
  gated_activation(op.activation, gate, arguments.input(1), gated.view(),
                   *context.pool, context.isa);
  arguments.put(std::move(gated));
}

void run(const ClampedGateOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF gate = arguments.take(0);
  float* const g = gate.data().data();
  const float* const up = arguments.input(1).data().data();
  for_elements(gate.size(), context, [&](std::size_t i) {
    const float x = std::min(g[i], op.limit);
    const float u = std::clamp(up[i], -op.limit, op.limit);
    g[i] = (u + 1) * x / (1 + std::exp(-op.alpha * x));
  });
  arguments.put(std::move(gate));
}

void run(const AddOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const float* const a = arguments.input(0).data().data();
  const float* const b = arguments.input(1).data().data();
  assert(arguments.in[0]->rows.size() == arguments.in[1]->rows.size());
  MatrixF sum = arguments.output_like(0);
  float* const to = sum.data().data();
  if (op.factor == 1) {
    for_elements(sum.size(), context,
                 [=](std::size_t i) { to[i] = a[i] + b[i]; });
  } else {
    for_elements(sum.size(), context, [=, factor = op.factor](std::size_t i) {
      to[i] = a[i] + factor * b[i];
    });
  }
  arguments.put(std::move(sum));
}

void run(const MultiplyOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF product = arguments.take(0);
  assert(product.size() == arguments.in[1]->rows.size() * op.unit);
  float* const a = product.data().data();
  const float* const b = arguments.input(1).data().data();
  for_elements(product.size(), context,
               [&](std::size_t i) { a[i] *= b[i / op.unit]; });
  arguments.put(std::move(product));
}

void run(const ScaleOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF X = arguments.take(0);
  float* const x = X.data().data();
  for_elements(X.size(), context, [&](std::size_t i) {
    x[i] = std::clamp(x[i] * op.factor, -op.limit, op.limit);
  });
  if (op.parameter) {
    const std::vector<float>& s = context.parameters[*op.parameter];
    for_elements(X.size(), context,
                 [&](std::size_t i) { x[i] *= s[i % s.size()]; });
  }
  arguments.put(std::move(X));
}

void run(const PositionScaleOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF X = arguments.take(0);
  const std::vector<float> scales = position_scales(op, context);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (float& x : X.row(t)) x *= scales[t];
  }
  arguments.put(std::move(X));
}

void backward(const ActivationOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const auto dX = gradients.to_add(0);
  if (dX.size() == 0) return;
  activation_backward(op.activation, gradients.input(0), gradients.gradient(),
                      dX, *context.pool, context.isa);
}

void backward(const GateOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const bool same = gradients.in[0] == gradients.in[1];
  const GradientSum gate = gradients.to_write(0);
  const GradientSum up = same ? GradientSum{gate.view} : gradients.to_write(1);
  gated_activation_backward(op.activation, gradients.input(0),
                            gradients.input(1), gradients.gradient(),
                            {gate.view, gate.is_new}, {up.view, up.is_new},
                            *context.pool, context.isa);
}

void backward(const ClampedGateOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const float* const gate = gradients.input(0).data().data();
  const float* const up = gradients.input(1).data().data();
  const float* const dy = gradients.gradient().data().data();
  const auto d_gate = gradients.to_add(0), d_up = gradients.to_add(1);
  for_elements(gradients.input(0).size(), context, [&](std::size_t i) {
    const float x = std::min(gate[i], op.limit);
    const float u = std::clamp(up[i], -op.limit, op.limit);
    const float s = 1 / (1 + std::exp(-op.alpha * x));
    if (d_gate.size() != 0 && gate[i] <= op.limit) {
      d_gate.data()[i] += dy[i] * (u + 1) * s * (1 + op.alpha * x * (1 - s));
    }
    if (d_up.size() != 0 && std::abs(up[i]) <= op.limit) {
      d_up.data()[i] += dy[i] * x * s;
    }
  });
}

void backward(const AddOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const float* const dy = gradients.gradient().data().data();
  const auto add = [&](std::size_t i, float factor) {
    const GradientSum d = gradients.to_write(i);
    if (d.view.size() == 0) return;
    float* const to = d.view.data().data();
    if (d.is_new) {
      for_elements(d.view.size(), context,
                   [=](std::size_t j) { to[j] = factor * dy[j]; });
    } else {
      for_elements(d.view.size(), context,
                   [=](std::size_t j) { to[j] += factor * dy[j]; });
    }
  };
  add(0, 1);
  add(1, op.factor);
}

void backward(const MultiplyOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const float* const a = gradients.input(0).data().data();
  const float* const b = gradients.input(1).data().data();
  const float* const dy = gradients.gradient().data().data();
  if (const auto d = gradients.to_add(0); d.size() != 0) {
    for_elements(d.size(), context,
                 [&](std::size_t i) { d.data()[i] += dy[i] * b[i / op.unit]; });
  }
  if (const auto d = gradients.to_add(1); d.size() != 0) {
    for_elements(d.size(), context, [&](std::size_t i) {
      float sum = 0;
      for (std::size_t j = i * op.unit; j < (i + 1) * op.unit; ++j) {
        sum += dy[j] * a[j];
      }
      d.data()[i] += sum;
    });
  }
}

// Nothing passes where the clamp holds.
void backward(const ScaleOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView X = gradients.input(0), dY = gradients.gradient();
  const std::vector<float> one{1.0f};
  const std::span<const float> s =
      op.parameter ? context.parameters[*op.parameter] : one;
  if (const auto dX = gradients.to_add(0); dX.size() != 0) {
    for_elements(dX.size(), context, [&](std::size_t i) {
      if (std::abs(X.data()[i] * op.factor) > op.limit) return;
      dX.data()[i] += dY.data()[i] * op.factor * s[i % s.size()];
    });
  }
  if (!op.parameter) return;
  const auto d_s = gradients.parameter(*op.parameter);
  std::vector<double> sums(d_s.size());
  for (std::size_t i = 0; !sums.empty() && i < X.size(); ++i) {
    const float x = std::clamp(X.data()[i] * op.factor, -op.limit, op.limit);
    sums[i % sums.size()] += static_cast<double>(dY.data()[i] * x);
  }
  for (std::size_t c = 0; c < sums.size(); ++c) {
    d_s[c] += static_cast<float>(sums[c]);
  }
}

void backward(const PositionScaleOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const auto dX = gradients.to_add(0);
  if (dX.size() == 0) return;
  const std::vector<float> scales = position_scales(op, context);
  for (std::size_t t = 0; t < dX.rows(); ++t) {
    const auto dy = gradients.gradient().row(t);
    for (std::size_t c = 0; c < dy.size(); ++c) dX(t, c) += dy[c] * scales[t];
  }
}

}  // namespace llmpress
