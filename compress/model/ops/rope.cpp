#include "compress/model/ops/rope.h"

#include <algorithm>

#include "compress/core/matrix_reuse.h"

namespace llmpress {
namespace {

// The context that the longest sequence of the batch may grow to.
std::size_t longest_context(std::span<const Segment> segments) {
  std::size_t longest = 0;
  for (const Segment& s : segments) {
    longest = std::max(
        longest, s.cache != nullptr ? s.cache->capacity() : s.past + s.rows);
  }
  return longest;
}

using Turn = void(MatrixView<float> X, std::size_t head_dim,
                  std::span<const std::uint32_t> positions,
                  const RopeTables& tables, RopeStyle style, ThreadPool& pool);

void turn(const RopeOp& op, const OpContext& context, Turn* by,
          MatrixView<float> X) {
  const auto positions = row_positions(context.segments);
  if (positions.empty()) return;
  const std::uint32_t last =
      *std::max_element(positions.begin(), positions.end());
  const auto tables = context.ropes[op.rope]->at_least(
      std::size_t{last} + 1, longest_context(context.segments));
  by(X, op.head_dim, positions, *tables, op.style, *context.pool);
}

}  // namespace

std::vector<std::uint32_t> row_positions(std::span<const Segment> segments) {
  std::vector<std::uint32_t> positions;
  for (const Segment& segment : segments) {
    for (std::size_t r = 0; r < segment.rows; ++r) {
      positions.push_back(static_cast<std::uint32_t>(segment.past + r));
    }
  }
  return positions;
}

void run(const RopeOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF X = arguments.last_use[0]
                  ? arguments.take(0)
                  : copy_of(arguments.input(0), *context.pool);
  turn(op, context, apply_rope_in_place, X.view());
  arguments.put(std::move(X));
}

void backward(const RopeOp& op, const OpContext& context,
              const OpGradients& gradients) {
  if (!gradients.wants(0)) return;
  MatrixF d = copy_of(gradients.gradient(), *context.pool);
  turn(op, context, apply_transposed_rope_in_place, d.view());
  gradients.add(0, std::move(d));
}

}  // namespace llmpress
