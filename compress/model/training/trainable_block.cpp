#include "compress/model/training/trainable_block.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "compress/core/formatted.h"
#include "compress/model/facts.h"
#include "compress/model/training/scaled_linear.h"

namespace llmpress {
namespace {

// Parameters that only choose, or are known beforehand, learn nothing; nor do
// the tables and single factors that are buffers in transformers' classes.
bool can_learn(const BlockSpec& block, std::size_t parameter) {
  if (!block.parameters[parameter].constant.empty()) return false;
  return std::ranges::none_of(block.operations, [&](const Operation& op) {
    const auto* const route = std::get_if<RouteOp>(&op.kind);
    const auto* const attention = std::get_if<AttentionOp>(&op.kind);
    const auto* const mixes = std::get_if<LinearAttentionOp>(&op.kind);
    const auto* const scale = std::get_if<ScaleOp>(&op.kind);
    return (scale != nullptr && scale->parameter == parameter &&
            block.parameters[parameter].shape == std::vector<std::size_t>{1}) ||
           (mixes != nullptr && mixes->rate == parameter) ||
           (route != nullptr && route->bias == parameter) ||
           (attention != nullptr && attention->slopes == parameter);
  });
}

bool adds_to_stream(const BlockSpec& block, std::size_t linear) {
  const StreamFacts facts = stream_facts(block);
  return std::ranges::count(facts.writers, linear) != 0;
}

std::unique_ptr<TrainableLinear> make_linear(const std::string& name,
                                             LinearWeights weights,
                                             const ModelLearning& learning,
                                             Isa isa) {
  if (learning.makes) {
    if (auto own = learning.makes(name, weights)) return own;
  }
  if (const auto adapter =
          learning.adapts ? learning.adapts(name) : std::nullopt) {
    return std::make_unique<LoraLinear>(std::move(weights), *adapter, isa);
  }
  const LearningChoice& learns = learning.learns;
  const bool bias = learns(name + ".bias");
  if (std::holds_alternative<DenseWeight>(weights.weight)) {
    if (learns(name + ".weight")) {
      return std::make_unique<LearningLinear>(dequantize(weights.weight),
                                              std::move(weights.bias), isa);
    }
  } else if (const ScaledParts parts{
                 .scales = learns(name + ".weight_scale"),
                 .zeros = learns(name + ".weight_zero_point"),
                 .bias = bias};
             parts.scales || parts.zeros) {
    return std::make_unique<ScaledLinear>(std::move(weights), parts);
  }
  return std::make_unique<FrozenLinear>(
      std::move(weights), isa, bias ? BiasRole::kLearns : BiasRole::kFrozen);
}

}  // namespace

std::unique_ptr<TrainableLinear> make_trainable_linear(
    const std::string& name, LinearWeights weights,
    const ModelLearning& learning, Isa isa) {
  try {
    return make_linear(name, std::move(weights), learning, isa);
  } catch (const Error& error) {
    fail(error.code(), "'{}': {}", name, error.what());
  }
}

TrainableBlock::TrainableBlock(const Architecture& arch, std::size_t layer,
                               BlockWeights weights,
                               const ModelLearning& learning,
                               const BlockOptions& options)
    : arch_(&arch),
      layer_(layer),
      norms_(weights.norms),
      values_(weights.parameters),
      block_(arch, layer, weights, options),
      dropout_(learning.dropout),
      attention_dropout_(learning.attention_dropout) {
  const BlockSpec& spec = block_.spec();
  const std::string prefix = arch.block_name(layer) + ".";
  for (std::size_t i = 0; i < spec.linears.size(); ++i) {
    add_linear(i, std::move(weights.linears[i]), learning, options.isa);
  }
  const LearningChoice& learns = learning.learns;
  gradients_.norms.resize(spec.norms.size());
  for (std::size_t n = 0; n < spec.norms.size(); ++n) {
    const NormWeights& norm = norms_.at(spec.norms[n].name);
    NormGradients& d = gradients_.norms[n];
    const bool gain = learns(prefix + spec.norms[n].name + ".weight");
    if (gain) d.gain.resize(norm.gain.size());
    if (gain || learns(prefix + spec.norms[n].name + ".bias")) {
      d.bias.resize(norm.bias.size());
    }
    norm_learns_.push_back(!d.gain.empty() || !d.bias.empty());
  }
  gradients_.parameters.resize(spec.parameters.size());
  for (std::size_t p = 0; p < values_.size(); ++p) {
    value_learns_.push_back(can_learn(spec, p) &&
                            learns(prefix + spec.parameters[p].name));
    if (value_learns_.back())
      gradients_.parameters[p].resize(values_[p].size());
  }
  if (learning.prefix) add_prefix(learning.prefix(layer));
}

void TrainableBlock::add_prefix(BlockPrefix prefix) {
  if (attention_dropout_ > 0) {
    fail(ErrorCode::kUnsupported,
         "{}: a prefix does not go with a dropout of attention's probabilities",
         arch_->block_name(layer_));
  }
  prefix_ = std::move(prefix);
  for (const KvPrefix& p : prefix_) {
    gradients_.prefix.push_back(
        {.keys = MatrixF(p.keys.rows(), p.keys.cols()),
         .values = MatrixF(p.values.rows(), p.values.cols())});
  }
  ThreadPool alone(1);
  block_.set_prefix(prefix_, alone);
}

void TrainableBlock::list_prefix(std::vector<Parameter>& to) {
  const std::string name = arch_->block_name(layer_) + ".prefix";
  for (std::size_t s = 0; s < prefix_.size(); ++s) {
    const std::string slot = prefix_.size() == 1 ? "" : formatted(".{}", s);
    const auto add = [&](const char* part, MatrixF& value, MatrixF& d) {
      to.push_back({.name = name + slot + part,
                    .shape = {value.rows(), value.cols()},
                    .value = value.data(),
                    .gradient = d.data()});
    };
    add(".keys", prefix_[s].keys, gradients_.prefix[s].keys);
    add(".values", prefix_[s].values, gradients_.prefix[s].values);
  }
}

void TrainableBlock::add_linear(std::size_t index, LinearWeights weights,
                                const ModelLearning& learning, Isa isa) {
  std::unique_ptr<TrainableLinear> linear = make_trainable_linear(
      arch_->linear_name(layer_, index), std::move(weights), learning, isa);
  if (learning.wraps) {
    linear = learning.wraps(layer_, index, std::move(linear));
  }
  if (dropout_ > 0 && adds_to_stream(block_.spec(), index)) {
    auto dropped = std::make_unique<DroppedLinear>(std::move(linear));
    dropped_.push_back(dropped.get());
    linear = std::move(dropped);
  }
  block_.wrap_linear(index, [&](std::unique_ptr<LinearKernel>) {
    return std::make_unique<BorrowedLinear>(*linear);
  });
  reversible_.push_back(linear.get());
  linears_.push_back(std::move(linear));
}

void TrainableBlock::set_dropout(std::optional<std::uint64_t> seed) {
  const auto of = [&](float rate) {
    return seed ? Dropout{rate, *seed}.of(layer_) : Dropout{};
  };
  block_.set_attention_dropout(of(attention_dropout_));
  for (std::size_t i = 0; i < dropped_.size(); ++i) {
    // Apart from attention's, whose parts are its slots.
    dropped_[i]->set(of(dropout_).of(i + (std::uint64_t{1} << 32)));
  }
}

std::vector<Parameter> TrainableBlock::parameters() {
  const BlockSpec& spec = block_.spec();
  const std::string prefix = arch_->block_name(layer_) + ".";
  std::vector<Parameter> all;
  for (std::size_t i = 0; i < linears_.size(); ++i) {
    linears_[i]->list_parameters(arch_->linear_name(layer_, i), all);
  }
  const auto add = [&](std::string name, std::vector<std::size_t> shape,
                       std::vector<float>& value, std::vector<float>& d) {
    if (d.empty()) return;
    all.push_back({std::move(name), std::move(shape), value, d});
  };
  for (std::size_t n = 0; n < spec.norms.size(); ++n) {
    if (!norm_learns_[n]) continue;
    NormWeights& norm = norms_.at(spec.norms[n].name);
    NormGradients& d = gradients_.norms[n];
    const std::string name = prefix + spec.norms[n].name;
    add(name + ".weight", {norm.gain.size()}, norm.gain, d.gain);
    add(name + ".bias", {norm.bias.size()}, norm.bias, d.bias);
  }
  for (std::size_t p = 0; p < values_.size(); ++p) {
    add(prefix + spec.parameters[p].name, spec.parameters[p].shape, values_[p],
        gradients_.parameters[p]);
  }
  list_prefix(all);
  return all;
}

void TrainableBlock::values_changed(ThreadPool& pool) {
  for (const auto& linear : linears_) linear->values_changed(pool);
  const BlockSpec& spec = block_.spec();
  for (std::size_t n = 0; n < spec.norms.size(); ++n) {
    if (!norm_learns_[n]) continue;
    block_.replace_norm(spec.norms[n].name, norms_.at(spec.norms[n].name));
  }
  for (std::size_t p = 0; p < values_.size(); ++p) {
    if (value_learns_[p]) block_.replace_parameter(p, values_[p]);
  }
  if (!prefix_.empty()) block_.set_prefix(prefix_, pool);
}

void TrainableBlock::run_backward(BlockPass& pass,
                                  std::span<const Segment> segments,
                                  StreamGradient& stream, ThreadPool& pool) {
  block_.run_backward(pass, segments, reversible_, gradients_, stream, pool);
}

std::size_t TrainableBlock::bytes() const {
  std::size_t total = block_.bytes();
  for (const auto& linear : linears_) total += linear->bytes();
  return total;
}

}  // namespace llmpress
