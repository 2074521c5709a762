#include "compress/model/program_builder.h"

#include <numeric>
#include <utility>

namespace llmpress {

std::string numbered(std::string_view name, std::size_t number) {
  std::string text;
  for (const char c : name) {
    if (c == '%') {
      text += std::to_string(number);
    } else {
      text += c;
    }
  }
  return text;
}

ProgramBuilder::ProgramBuilder(std::size_t hidden) {
  value("stream", hidden, Axis::kHidden);
}

ValueId ProgramBuilder::value(const std::string& name, std::size_t width,
                              Axis axis) {
  block_.values.push_back({.name = name, .width = width, .axis = axis});
  return block_.values.size() - 1;
}

ValueId ProgramBuilder::apply(OpKind op, std::vector<ValueId> in,
                              std::size_t width, Axis axis) {
  const ValueSpec from = block_.values[in.front()];
  const bool same = width == 0 || width == from.width;
  const ValueId out = value("v" + std::to_string(block_.values.size()),
                            width == 0 ? from.width : width,
                            axis == Axis::kOther && same ? from.axis : axis);
  block_.operations.push_back(
      {.kind = std::move(op), .in = std::move(in), .out = {out}});
  return out;
}

ValueId ProgramBuilder::norm(ValueId x, const std::string& name,
                             const NormOptions& options) {
  if (options.weightless) return plain_norm(x, options);
  const std::size_t gain =
      options.unit == 0 || options.gain_of_width ? width(x) : options.unit;
  block_.norms.push_back({.name = name,
                          .width = gain,
                          .bias = options.bias,
                          .offset = options.offset});
  return apply(NormOp{.kind = options.kind,
                      .norm = block_.norms.size() - 1,
                      .epsilon = options.epsilon,
                      .unit = options.unit},
               {x});
}

ValueId ProgramBuilder::plain_norm(ValueId x, const NormOptions& options) {
  return apply(NormOp{.kind = options.kind,
                      .norm = std::nullopt,
                      .epsilon = options.epsilon,
                      .unit = options.unit},
               {x});
}

std::size_t ProgramBuilder::add_linear(const std::string& name, std::size_t in,
                                       std::size_t out,
                                       const LinearOptions& options) {
  block_.linears.push_back({.name = name,
                            .out = out,
                            .in = in,
                            .bias = options.bias,
                            .role = options.role,
                            .storage = options.storage});
  return block_.linears.size() - 1;
}

ValueId ProgramBuilder::linear(ValueId x, const std::string& name,
                               std::size_t out, const LinearOptions& options) {
  return apply(LinearOp{{add_linear(name, width(x), out, options)}}, {x}, out,
               options.axis);
}

ValueId ProgramBuilder::expert_linear(ValueId routed, const std::string& name,
                                      std::size_t experts, std::size_t out,
                                      const LinearOptions& options) {
  LinearOp op;
  for (std::size_t e = 0; e < experts; ++e) {
    LinearOptions own = options;
    if (own.storage) own.storage->index = e;
    op.linears.push_back(
        add_linear(numbered(name, e), width(routed), out, own));
  }
  return apply(std::move(op), {routed}, out, options.axis);
}

std::vector<ValueId> ProgramBuilder::split(ValueId x, std::size_t groups,
                                           std::vector<std::size_t> widths,
                                           const std::vector<Axis>& axes) {
  std::vector<ValueId> out;
  for (std::size_t p = 0; p < widths.size(); ++p) {
    out.push_back(value("v" + std::to_string(block_.values.size()),
                        groups * widths[p], axes[p]));
  }
  block_.operations.push_back(
      {.kind = SplitOp{.groups = groups, .widths = std::move(widths)},
       .in = {x},
       .out = out});
  return out;
}

ValueId ProgramBuilder::join(std::vector<ValueId> parts, std::size_t groups,
                             std::vector<std::size_t> widths, Axis axis) {
  const std::size_t total =
      groups * std::accumulate(widths.begin(), widths.end(), std::size_t{0});
  return apply(JoinOp{.groups = groups, .widths = std::move(widths)},
               std::move(parts), total, axis);
}

ValueId ProgramBuilder::rope(ValueId x, const RopeOp& op) {
  return apply(op, {x});
}

ValueId ProgramBuilder::attention(ValueId q, ValueId k, ValueId v,
                                  AttentionOp op) {
  if (!op.shared_layer) {
    op.slot = block_.slots.size();
    block_.slots.push_back({.kv_heads = op.kv_heads,
                            .key_dim = op.head_dim,
                            .value_dim = op.value_dim});
  }
  const std::size_t mixed = op.heads * op.value_dim;
  return apply(op, {q, k, v}, mixed, Axis::kMixed);
}

ValueId ProgramBuilder::activation(ValueId x, Activation activation) {
  return apply(ActivationOp{activation}, {x});
}

ValueId ProgramBuilder::gate(ValueId gate, ValueId up, Activation activation) {
  return apply(GateOp{activation}, {gate, up});
}

ValueId ProgramBuilder::add(ValueId a, ValueId b, float factor) {
  return apply(AddOp{factor}, {a, b});
}

ValueId ProgramBuilder::multiply(ValueId a, ValueId b) {
  return apply(MultiplyOp{width(a) / width(b)}, {a, b});
}

ValueId ProgramBuilder::scale(ValueId x, float factor) {
  return apply(ScaleOp{.factor = factor}, {x});
}

std::size_t ProgramBuilder::parameter(const std::string& name,
                                      std::vector<std::size_t> shape) {
  block_.parameters.push_back({.name = name, .shape = std::move(shape)});
  return block_.parameters.size() - 1;
}

std::size_t ProgramBuilder::constant(const std::string& name,
                                     std::vector<float> values) {
  ParameterSpec spec{.name = name, .shape = {values.size()}};
  spec.constant = std::move(values);
  block_.parameters.push_back(std::move(spec));
  return block_.parameters.size() - 1;
}

std::size_t ProgramBuilder::state_slot(std::size_t size) {
  block_.slots.push_back({.state = size});
  return block_.slots.size() - 1;
}

ValueId ProgramBuilder::carried(const std::string& name, std::size_t width,
                                Axis axis, std::size_t channel) {
  const ValueId id = value(name, width, axis);
  block_.carried_in.push_back({.value = id, .channel = channel});
  return id;
}

void ProgramBuilder::carry_out(ValueId x, std::size_t channel) {
  block_.carried_out.push_back({.value = x, .channel = channel});
}

BlockSpec ProgramBuilder::finish(ValueId result) {
  block_.result = result;
  derive_facts(block_);
  return std::move(block_);
}

}  // namespace llmpress
