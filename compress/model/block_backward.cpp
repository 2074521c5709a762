// Block's pass in reverse.
#include <algorithm>
#include <cassert>
#include <utility>
#include <variant>

#include "compress/core/formatted.h"
#include "compress/core/matrix_reuse.h"
#include "compress/model/block.h"

namespace llmpress {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

// The operation that writes each value; none for what comes in.
std::vector<std::size_t> writers(const BlockSpec& block) {
  std::vector<std::size_t> by(block.values.size(), kNone);
  for (std::size_t i = 0; i < block.operations.size(); ++i) {
    for (const ValueId v : block.operations[i].out) by[v] = i;
  }
  return by;
}

void check_alone(std::span<const Segment> segments, std::size_t prefix_tokens) {
  for (const Segment& segment : segments) {
    if (segment.cache == nullptr && segment.past == prefix_tokens) continue;
    fail(ErrorCode::kInvalidArgument,
         "a pass that is run in reverse has no caches");
  }
}

}  // namespace

BlockPass Block::run_keeping(std::span<const Segment> segments,
                             BlockState& state, ThreadPool& pool) const {
  check_alone(segments, prefix_tokens());
  BlockPass pass{.values = enter(state, segments)};
  run_operations(0, spec().operations.size(), pass.values,
                 context(segments, pool), Keep::kAll);
  for (const CarriedValue& c : spec().carried_out) {
    if (c.channel >= state.carried.size()) state.carried.resize(c.channel + 1);
    state.carried[c.channel] = pass.values[c.value];
  }
  state.hidden =
      copy_of(std::as_const(pass.values[spec().result].rows).view(), pool);
  return pass;
}

void Block::run_backward(BlockPass& pass, std::span<const Segment> segments,
                         std::span<ReversibleLinear* const> linears,
                         BlockGradients& own, StreamGradient& stream,
                         ThreadPool& pool) const {
  const BlockSpec& block = spec();
  const OpContext around = context(segments, pool);
  const std::vector<std::size_t> writer = writers(block);
  std::vector<MatrixF> d(block.values.size());
  for (auto& [value, gradient] : pass.gradients) {
    add_matrix(d[value], std::move(gradient));
  }
  add_matrix(d[block.result], std::move(stream.hidden));
  for (const CarriedValue& c : block.carried_out) {
    if (c.channel >= stream.carried.size()) continue;
    MatrixF& carried = stream.carried[c.channel];
    if (!carried.empty()) add_matrix(d[c.value], std::move(carried));
    carried = {};
  }
  OpGradients gradients;
  gradients.linears = linears;
  gradients.own = &own;
  gradients.pool = &pool;
  for (std::size_t i = block.operations.size(); i-- > 0;) {
    const Operation& op = block.operations[i];
    gradients.in.clear();
    gradients.out.clear();
    gradients.d_in.clear();
    gradients.d_out.clear();
    bool depends = std::holds_alternative<RouteOp>(op.kind);
    for (const ValueId v : op.out) depends = depends || !d[v].empty();
    for (const ValueId v : op.out) {
      if (depends && d[v].empty()) {
        const MatrixF& rows = pass.values[v].rows;
        d[v] = zero_matrix(rows.rows(), rows.cols(), pool);
      }
      gradients.out.push_back(&pass.values[v]);
      gradients.d_out.push_back(&d[v]);
    }
    for (const ValueId v : op.in) {
      gradients.in.push_back(&pass.values[v]);
      gradients.d_in.push_back(&d[v]);
    }
    if (depends) {
      std::visit([&](const auto& kind) { backward(kind, around, gradients); },
                 op.kind);
    }
    // Nothing before this operation knows what it wrote.
    for (const ValueId v : op.out) {
      if (writer[v] != i) continue;
      if (pass.values[v].routing == nullptr) {
        give_back(std::exchange(d[v], {}));
        give_back(std::move(pass.values[v].rows));
      }
      d[v] = {};
      pass.values[v] = {};
    }
  }
  own.routing.clear();
  stream.hidden = std::move(d[0]);
  for (const CarriedValue& c : block.carried_in) {
    if (d[c.value].empty()) continue;
    if (c.channel >= stream.carried.size())
      stream.carried.resize(c.channel + 1);
    add_matrix(stream.carried[c.channel], std::move(d[c.value]));
  }
}

}  // namespace llmpress
