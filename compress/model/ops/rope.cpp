#include "compress/model/ops/rope.h"

#include <algorithm>

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
  MatrixF X = arguments.take(0);
  const auto positions = row_positions(context.segments);
  if (!positions.empty()) {
    const std::uint32_t last =
        *std::max_element(positions.begin(), positions.end());
    const auto tables = context.ropes[op.rope]->at_least(
        std::size_t{last} + 1, longest_context(context.segments));
    apply_rope_in_place(X.view(), op.head_dim, positions, *tables, op.style,
                        *context.pool);
  }
  arguments.put(std::move(X));
}

}  // namespace llmpress
