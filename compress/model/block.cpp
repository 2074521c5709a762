#include "compress/model/block.h"

#include <algorithm>
#include <cassert>
#include <utility>
#include <variant>

#include "compress/core/formatted.h"
#include "compress/core/hadamard.h"
#include "compress/core/matrix_reuse.h"
#include "compress/model/spread_linear.h"

namespace llmpress {
namespace {

void check_segments(std::span<const Segment> segments, std::size_t rows,
                    std::size_t prefix_tokens) {
  std::size_t total = 0;
  for (const Segment& segment : segments) {
    total += segment.rows;
    const std::size_t cached =
        segment.cache ? segment.cache->tokens() : prefix_tokens;
    if (segment.past != cached) {
      fail(ErrorCode::kInvalidArgument,
           "segment: past is {}, but its cache or prefix holds {}",
           segment.past, cached);
    }
  }
  if (total != rows) {
    fail(ErrorCode::kInvalidArgument, "segments have {} rows, the batch {}",
         total, rows);
  }
}

void check_key_rotation(const Architecture& arch, const BlockSpec& spec) {
  for (const Operation& op : spec.operations) {
    const auto* const attention = std::get_if<AttentionOp>(&op.kind);
    if (attention == nullptr || hadamard_size_supported(attention->head_dim)) {
      continue;
    }
    fail(ErrorCode::kUnsupported,
         "{}: rotated keys: there is no Hadamard transform of head_dim {}",
         arch.model_type, attention->head_dim);
  }
}

}  // namespace

RopeTablesOfModel make_ropes(const Architecture& arch) {
  RopeTablesOfModel ropes;
  for (const RopeConfig& rope : arch.ropes) {
    ropes.push_back(std::make_shared<RopePositions>(rope));
  }
  return ropes;
}

Block::Block(const Architecture& arch, std::size_t layer,
             const BlockWeights& weights, BlockOptions options)
    : arch_(&arch), layer_(layer), options_(std::move(options)) {
  prepare(weights);
  if (weights.linears.size() != linears_.size()) {
    fail(ErrorCode::kInvalidInput, "{}: has {} Linears, wanted {}",
         arch.block_name(layer), weights.linears.size(), linears_.size());
  }
  for (std::size_t i = 0; i < linears_.size(); ++i) {
    replace_linear(i, weights.linears[i]);
  }
}

Block::Block(const Architecture& arch, std::size_t layer,
             const BlockWeights& rest, const LinearReader& read,
             BlockOptions options)
    : arch_(&arch), layer_(layer), options_(std::move(options)) {
  prepare(rest);
  for (std::size_t i = 0; i < linears_.size(); ++i) replace_linear(i, read(i));
}

Block::Block(const Architecture& arch, std::size_t layer,
             const BlockWeights& rest, const KernelMaker& make,
             BlockOptions options)
    : arch_(&arch), layer_(layer), options_(std::move(options)) {
  prepare(rest);
  for (std::size_t i = 0; i < linears_.size(); ++i) {
    auto kernel = make(i);
    check_shape(i, kernel->out(), kernel->in());
    linears_[i] = std::move(kernel);
  }
}

// All but the Linears.
void Block::prepare(const BlockWeights& weights) {
  const Architecture& arch = *arch_;
  if (options_.ropes.empty()) options_.ropes = make_ropes(arch);
  if (options_.kv.rotate_keys) check_key_rotation(arch, spec());
  linears_.resize(spec().linears.size());
  norms_.resize(spec().norms.size());
  for (const NormSpec& norm : spec().norms) {
    const auto found = weights.norms.find(norm.name);
    replace_norm(norm.name,
                 found == weights.norms.end() ? NormWeights{} : found->second);
  }
  kv_scheme_ = weights.kv_scheme;
  parameters_ = weights.parameters;
  if (parameters_.size() != spec().parameters.size()) {
    fail(ErrorCode::kInvalidInput, "{}: has {} other tensors, wanted {}",
         arch.block_name(layer_), parameters_.size(), spec().parameters.size());
  }
}

void Block::check_shape(std::size_t index, std::size_t out,
                        std::size_t in) const {
  const LinearSpec& linear = spec().linears.at(index);
  if (out == linear.out && in == linear.in) return;
  fail(ErrorCode::kInvalidInput, "{}: weight is [{}, {}], wanted [{}, {}]",
       arch_->linear_name(layer_, index), out, in, linear.out, linear.in);
}

void Block::replace_linear(std::size_t index, const LinearWeights& weights) {
  check_shape(index, rows_of(weights.weight), cols_of(weights.weight));
  linears_[index] = make_spread_linear(weights, options_.isa, options_.inputs,
                                       options_.tensor);
}

void Block::wrap_linear(std::size_t index,
                        const std::function<std::unique_ptr<LinearKernel>(
                            std::unique_ptr<LinearKernel>)>& wrap) {
  linears_.at(index) = wrap(std::move(linears_.at(index)));
}

void Block::replace_norm(const std::string& name, const NormWeights& weights) {
  const auto norm = std::ranges::find(spec().norms, name, &NormSpec::name);
  assert(norm != spec().norms.end());
  if (weights.gain.size() != norm->width ||
      (!weights.bias.empty() && weights.bias.size() != norm->width)) {
    fail(ErrorCode::kInvalidInput, "{}.{}: gain has {} values, wanted {}",
         arch_->block_name(layer_), name, weights.gain.size(), norm->width);
  }
  NormWeights& prepared =
      norms_[static_cast<std::size_t>(norm - spec().norms.begin())];
  prepared = weights;
  if (weights.offset == 0) return;
  for (float& gain : prepared.gain) gain += weights.offset;
}

void Block::replace_parameter(std::size_t index,
                              std::span<const float> values) {
  assert(values.size() == parameters_.at(index).size());
  std::ranges::copy(values, parameters_[index].begin());
}

std::size_t Block::bytes() const {
  std::size_t floats = 0;
  for (const NormWeights& norm : norms_) {
    floats += norm.gain.size() + norm.bias.size();
  }
  for (const auto& parameter : parameters_) floats += parameter.size();
  std::size_t total = floats * sizeof(float);
  for (const auto& linear : linears_) total += linear->bytes();
  return total;
}

OpContext Block::context(std::span<const Segment> segments,
                         ThreadPool& pool) const {
  return {.layer = layer_,
          .first_layer = options_.first_layer,
          .segments = segments,
          .linears = linears_,
          .norms = norms_,
          .parameters = parameters_,
          .ropes = options_.ropes,
          .kv = options_.kv,
          .kv_scheme = kv_scheme_ ? &*kv_scheme_ : nullptr,
          .kv_ranges = options_.kv_ranges,
          .prefix = prefix_,
          .all_experts = all_experts_,
          .attention_dropout = dropout_,
          .isa = options_.isa,
          .pool = &pool};
}

void Block::run_operations(std::size_t begin, std::size_t end,
                           std::vector<Activations>& values,
                           const OpContext& context, Keep keep) const {
  const BlockSpec& block = spec();
  OpArguments arguments;
  for (std::size_t i = begin; i < end; ++i) {
    const Operation& op = block.operations[i];
    arguments.clear();
    for (const ValueId v : op.in) {
      arguments.in.push_back(&values[v]);
      arguments.last_use.push_back(keep == Keep::kNothing &&
                                   block.last_use[v] == i &&
                                   std::ranges::count(op.in, v) == 1);
    }
    for (const ValueId v : op.out) arguments.out.push_back(&values[v]);
    std::visit(
        [&](const auto& kind) { llmpress::run(kind, context, arguments); },
        op.kind);
    if (keep == Keep::kAll) continue;
    for (const ValueId v : op.in) {
      if (block.last_use[v] != i) continue;
      if (values[v].routing == nullptr) give_back(std::move(values[v].rows));
      values[v] = {};
    }
  }
}

std::vector<Activations> Block::enter(BlockState& state,
                                      std::span<const Segment> segments) const {
  const BlockSpec& block = spec();
  check_segments(segments, state.hidden.rows(), prefix_tokens());
  std::vector<Activations> values(block.values.size());
  for (const CarriedValue& c : block.carried_in) {
    if (c.channel >= state.carried.size() ||
        state.carried[c.channel].rows.rows() != state.hidden.rows()) {
      fail(ErrorCode::kUnsupported,
           "{}: reads what blocks before it made beside the stream, which was "
           "not kept here",
           arch_->block_name(layer_));
    }
    values[c.value] = state.carried[c.channel];
  }
  values[0].rows = std::move(state.hidden);
  return values;
}

void Block::leave(std::vector<Activations> values, BlockState& state) const {
  const BlockSpec& block = spec();
  for (const CarriedValue& c : block.carried_out) {
    if (c.channel >= state.carried.size()) state.carried.resize(c.channel + 1);
    state.carried[c.channel] = std::move(values[c.value]);
  }
  state.hidden = std::move(values[block.result].rows);
  state.stage_input = {};
  state.routing = nullptr;
  state.others.clear();
}

// Takes the values apart into what the state shows.
void Block::expose(std::size_t stage, std::vector<Activations> values,
                   BlockState& state) const {
  const BlockSpec& block = spec();
  if (stage == block.stages.size()) return leave(std::move(values), state);
  const StageSpec& next = block.stages[stage];
  state.routing = values[next.input].routing;
  if (next.input == next.stream) {
    state.stage_input = values[next.input].rows;
  } else {
    state.stage_input = std::move(values[next.input].rows);
  }
  // Empty where no later operation reads the stream.
  state.hidden = std::move(values[next.stream].rows);
  values[next.input] = {};
  values[next.stream] = {};
  state.others = std::move(values);
}

void Block::begin(BlockState& state, std::span<const Segment> segments,
                  ThreadPool& pool) const {
  const BlockSpec& block = spec();
  std::vector<Activations> values = enter(state, segments);
  const std::size_t end =
      block.stages.empty() ? block.operations.size() : block.stages[0].first_op;
  run_operations(0, end, values, context(segments, pool));
  expose(0, std::move(values), state);
}

void Block::run_stage(std::size_t stage, std::span<const Segment> segments,
                      BlockState& state, ThreadPool& pool) const {
  const BlockSpec& block = spec();
  const StageSpec& now = block.stages.at(stage);
  assert(state.stage_input.cols() == now.in);
  std::vector<Activations> values = std::move(state.others);
  values.resize(block.values.size());
  values[now.stream].rows = std::move(state.hidden);
  values[now.input].rows = std::move(state.stage_input);
  values[now.input].routing = std::move(state.routing);
  const std::size_t end = stage + 1 == block.stages.size()
                              ? block.operations.size()
                              : block.stages[stage + 1].first_op;
  run_operations(now.first_op, end, values, context(segments, pool));
  expose(stage + 1, std::move(values), state);
}

void Block::run(std::span<const Segment> segments, BlockState& state,
                ThreadPool& pool) const {
  std::vector<Activations> values = enter(state, segments);
  run_operations(0, spec().operations.size(), values, context(segments, pool));
  leave(std::move(values), state);
}

}  // namespace llmpress
