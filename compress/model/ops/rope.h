// Rotary position embedding of every head of a value.
#pragma once

#include <cstddef>

#include "compress/kernels/rope.h"
#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: x [tokens, heads * head_dim]; out: the same, the first coordinates of
// every head turned, as many as the tables of `rope` have.
struct RopeOp {
  std::size_t rope = 0;  // index into Architecture::ropes
  std::size_t head_dim = 0;
  RopeStyle style = RopeStyle::kHalves;

  bool operator==(const RopeOp&) const = default;
};

void run(const RopeOp& op, const OpContext& context,
         const OpArguments& arguments);
void backward(const RopeOp& op, const OpContext& context,
              const OpGradients& gradients);

// The position of every row of the batch in its sequence.
std::vector<std::uint32_t> row_positions(std::span<const Segment> segments);

}  // namespace llmpress
