#include "compress/model/ops/linear.h"

#include <cassert>

#include "compress/core/matrix_reuse.h"

namespace llmpress {

void run(const LinearOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  const Routing* const routing = arguments.in[0]->routing.get();
  const std::size_t out = context.linears[op.linears.front()]->out();
  // How many rows are routed changes from pass to pass.
  MatrixF Y =
      routing == nullptr ? unset_matrix(X.rows(), out) : MatrixF(X.rows(), out);
  if (routing == nullptr) {
    context.linears[op.linears.front()]->run(X, Y.view(), *context.pool);
  } else {
    assert(op.linears.size() == routing->experts());
    for (std::size_t e = 0; e < op.linears.size(); ++e) {
      const std::size_t begin = routing->offsets[e];
      const std::size_t rows = routing->offsets[e + 1] - begin;
      if (rows == 0) continue;
      context.linears[op.linears[e]]->run(X.rows_slice(begin, rows),
                                          Y.view().rows_slice(begin, rows),
                                          *context.pool);
    }
  }
  arguments.put(std::move(Y));
}

void backward(const LinearOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView X = gradients.input(0), dY = gradients.gradient();
  const Routing* const routing = gradients.in[0]->routing.get();
  if (routing == nullptr) {
    ReversibleLinear& linear = *gradients.linears[op.linears.front()];
    const GradientSum sum = gradients.to_write(0);
    if (sum.is_new) {
      return linear.run_backward_over(X, dY, sum.view, *context.pool);
    }
    return linear.run_backward(X, dY, sum.view, *context.pool);
  }
  const MatrixView<float> dX = gradients.to_add(0);
  const auto part = [&](std::size_t begin, std::size_t rows) {
    return dX.size() == 0 ? dX : dX.rows_slice(begin, rows);
  };
  for (std::size_t e = 0; e < op.linears.size(); ++e) {
    const std::size_t begin = routing->offsets[e];
    const std::size_t rows = routing->offsets[e + 1] - begin;
    if (rows == 0) continue;
    gradients.linears[op.linears[e]]->run_backward(
        X.rows_slice(begin, rows), dY.rows_slice(begin, rows),
        part(begin, rows), *context.pool);
  }
}

}  // namespace llmpress
