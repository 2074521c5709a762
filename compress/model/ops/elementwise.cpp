#include "compress/model/ops/elementwise.h"

#include <algorithm>
#include <cassert>
#include <cmath>

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

}  // namespace

void run(const ActivationOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF X = arguments.take(0);
  activate_in_place(op.activation, X.view(), *context.pool, context.isa);
  arguments.put(std::move(X));
}

void run(const GateOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF gate = arguments.take(0);
  gated_activation(op.activation, gate.view(), arguments.input(1), gate.view(),
                   *context.pool, context.isa);
  arguments.put(std::move(gate));
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
  MatrixF sum = arguments.take(0);
  assert(sum.size() == arguments.in[1]->rows.size());
  float* const a = sum.data().data();
  const float* const b = arguments.input(1).data().data();
  if (op.factor == 1) {
    for_elements(sum.size(), context, [&](std::size_t i) { a[i] += b[i]; });
  } else {
    for_elements(sum.size(), context,
                 [&](std::size_t i) { a[i] += op.factor * b[i]; });
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
  const auto positions = row_positions(context.segments);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    const double steps =
        std::floor((positions[t] + op.offset) / op.floor_positions);
    const auto scale = static_cast<float>(1 + static_cast<double>(op.slope) *
                                                  std::log1p(steps));
    for (float& x : X.row(t)) x *= scale;
  }
  arguments.put(std::move(X));
}

}  // namespace llmpress
