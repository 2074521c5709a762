// RWKV-4 (arXiv:2305.13048): time mixing, which has attention's place, and
// channel mixing, each of the token and the one before it.
#include <cmath>
#include <string>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

struct Traits {
  std::size_t channels = 0;  // of time mixing
  float epsilon = 1e-5f;
};

// mix x + (1 - mix) shifted.
ValueId mixed(ProgramBuilder& program, ValueId x, ValueId shifted,
              const std::string& name) {
  const std::size_t mix = program.parameter(name, {1, 1, program.width(x)});
  return program.apply(InterpolateOp{mix}, {x, shifted});
}

ValueId shift(ProgramBuilder& program, ValueId x) {
  return program.apply(TokenShiftOp{program.state_slot(program.width(x))}, {x});
}

// output(sigmoid(receptance) * wkv(key, value)).
ValueId time_mixing(ProgramBuilder& program, ValueId x, std::size_t hidden,
                    std::size_t channels) {
  const ValueId before = shift(program, x);
  const auto part = [&](const std::string& name) {
    return program.linear(
        mixed(program, x, before, "attention.time_mix_" + name),
        "attention." + name, channels, {.axis = Axis::kState});
  };
  const ValueId key = part("key"), value = part("value");
  const ValueId receptance = part("receptance");
  const WkvOp op{.channels = channels,
                 .decay = program.parameter("attention.time_decay", {channels}),
                 .bonus = program.parameter("attention.time_first", {channels}),
                 .slot = program.state_slot(3 * channels)};
  const ValueId y = program.gate(receptance, program.apply(op, {key, value}),
                                 Activation::kSigmoid);
  return program.linear(y, "attention.output", hidden, {.axis = Axis::kHidden});
}

// sigmoid(receptance) * value(relu(key)^2).
ValueId channel_mixing(ProgramBuilder& program, ValueId x,
                       const Architecture& arch) {
  const ValueId before = shift(program, x);
  const ValueId key =
      program.linear(mixed(program, x, before, "feed_forward.time_mix_key"),
                     "feed_forward.key", arch.ffn, {.axis = Axis::kFfn});
  const ValueId receptance = program.linear(
      mixed(program, x, before, "feed_forward.time_mix_receptance"),
      "feed_forward.receptance", arch.hidden, {.axis = Axis::kHidden});
  const ValueId value = program.linear(
      program.activation(key, Activation::kRelu2), "feed_forward.value",
      arch.hidden, {.axis = Axis::kHidden});
  return program.gate(receptance, value, Activation::kSigmoid);
}

BlockSpec block(const Architecture& arch, const Traits& traits, float epsilon) {
  ProgramBuilder program(arch.hidden);
  const BlockNorms norms{
      .before_attention = "ln1",
      .before_mlp = "ln2",
      .options = {.kind = NormKind::kLayer, .epsilon = epsilon, .bias = true}};
  return sequential_block(
      norms, program,
      [&](ValueId x) {
        return time_mixing(program, x, arch.hidden, traits.channels);
      },
      [&](ValueId x) { return channel_mixing(program, x, arch); });
}

}  // namespace

// Every `rescale_every` blocks the stream and what is added to it are halved.
// Halving changes a layer norm by its epsilon alone,
//   norm(x / s; e) = norm(x; s^2 e),
// so the stream is left as it is and the epsilons grow.
void describe_rwkv(const ConfigReader& config, Architecture& arch) {
  for (const char* key :
       {"num_attention_heads", "num_key_value_heads", "head_dim"}) {
    config.ignore(key);
  }
  arch.keys.free_heads = false;
  arch.hidden = require_size(config, "hidden_size", 4096);
  arch.layers = read_layers(config, "num_hidden_layers", 32);
  arch.ffn = require_size(config, "intermediate_size", 4 * arch.hidden);
  arch.vocabulary = require_size(config, "vocab_size", 50277);
  arch.max_positions = std::size_t{1} << 30;  // its state has no end
  config.ignore("context_length");
  config.ignore("max_position_embeddings");
  const Traits traits{
      .channels = require_size(config, "attention_hidden_size", arch.hidden),
      .epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5)};
  const double every = config.number("rescale_every").value_or(6);
  const auto growth = [&](std::size_t blocks) {
    if (!(every >= 1)) return 1.0f;
    const auto halvings = blocks / static_cast<std::size_t>(every);
    return std::pow(4.0f, static_cast<float>(halvings));
  };
  arch.body = "rwkv.";
  arch.other_places = {{.body = "", .head = "head"}};
  arch.embedding = "rwkv.embeddings";
  arch.embedding_norm = "rwkv.blocks.0.pre_ln";
  arch.embedding_norm_options = {
      .kind = NormKind::kLayer, .epsilon = traits.epsilon, .bias = true};
  arch.block_prefix = "rwkv.blocks.";
  arch.final_norm = "rwkv.ln_out";
  arch.final_norm_options = {.kind = NormKind::kLayer,
                             .epsilon = 1e-5f * growth(arch.layers),
                             .bias = true};
  arch.head = "head";
  arch.hf_class.reads_weights_early = true;
  read_tied_head(config, false, arch);
  std::vector<float> epsilons;
  for (std::size_t l = 0; l < arch.layers; ++l) {
    epsilons.push_back(traits.epsilon * growth(l));
  }
  set_blocks_by(arch, epsilons,
                [&](float epsilon) { return block(arch, traits, epsilon); });
}

}  // namespace llmpress
