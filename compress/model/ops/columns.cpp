#include "compress/model/ops/columns.h"

#include <cassert>
#include <cstring>
#include <numeric>
#include <utility>

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 32;

std::size_t sum(const std::vector<std::size_t>& widths) {
  return std::accumulate(widths.begin(), widths.end(), std::size_t{0});
}

void add(std::span<const float> from, std::span<float> to) {
  for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

}  // namespace

void run(const SplitOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  assert(X.cols() == op.groups * sum(op.widths));
  for (std::size_t p = 0; p < op.widths.size(); ++p) {
    arguments.out[p]->rows = MatrixF(X.rows(), op.groups * op.widths[p]);
    arguments.out[p]->routing = arguments.in[0]->routing;
  }
  context.pool->for_ranges(
      X.rows(), kRowsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          const float* from = X.row(t).data();
          for (std::size_t g = 0; g < op.groups; ++g) {
            for (std::size_t p = 0; p < op.widths.size(); ++p) {
              const std::size_t width = op.widths[p];
              std::memcpy(arguments.out[p]->rows.row(t).data() + g * width,
                          from, width * sizeof(float));
              from += width;
            }
          }
        }
      });
}

void run(const JoinOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const std::size_t rows = arguments.in[0]->rows.rows();
  MatrixF X(rows, op.groups * sum(op.widths));
  context.pool->for_ranges(
      rows, kRowsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          float* to = X.row(t).data();
          for (std::size_t g = 0; g < op.groups; ++g) {
            for (std::size_t p = 0; p < op.widths.size(); ++p) {
              const std::size_t width = op.widths[p];
              const auto row = arguments.input(p).row(t);
              const std::size_t at = row.size() == width ? 0 : g * width;
              std::memcpy(to, row.data() + at, width * sizeof(float));
              to += width;
            }
          }
        }
      });
  arguments.put(std::move(X));
}

void run(const LayerColumnsOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  assert((context.layer + 1) * op.width <= X.cols());
  MatrixF Y(X.rows(), op.width);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    std::memcpy(Y.row(t).data(), X.row(t).data() + context.layer * op.width,
                op.width * sizeof(float));
  }
  arguments.put(std::move(Y));
}

void backward(const SplitOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const auto dX = gradients.to_add(0);
  context.pool->for_ranges(
      dX.rows(), kRowsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          std::span<float> to = dX.row(t);
          for (std::size_t g = 0; g < op.groups; ++g) {
            for (std::size_t p = 0; p < op.widths.size(); ++p) {
              const std::size_t width = op.widths[p];
              add(gradients.gradient(p).row(t).subspan(g * width, width), to);
              to = to.subspan(width);
            }
          }
        }
      });
}

// A value that was repeated in every group gets the sum over them.
void backward(const JoinOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView dX = gradients.gradient();
  std::vector<MatrixView<float>> d;
  for (std::size_t p = 0; p < op.widths.size(); ++p) {
    d.push_back(gradients.to_add(p));
  }
  context.pool->for_ranges(
      dX.rows(), kRowsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          std::size_t from = 0;
          for (std::size_t g = 0; g < op.groups; ++g) {
            for (std::size_t p = 0; p < op.widths.size(); ++p) {
              const std::size_t width = op.widths[p];
              const std::size_t at = d[p].cols() == width ? 0 : g * width;
              if (gradients.wants(p)) {
                add(dX.row(t).subspan(from, width), d[p].row(t).subspan(at));
              }
              from += width;
            }
          }
        }
      });
}

void backward(const LayerColumnsOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const auto dX = gradients.to_add(0);
  for (std::size_t t = 0; t < dX.rows(); ++t) {
    add(gradients.gradient().row(t),
        dX.row(t).subspan(context.layer * op.width));
  }
}

}  // namespace llmpress
