// ERNIE 4.5's mixtures of experts: neighbouring coordinates turn, experts are
// chosen by softmax scores and a bias, beside shared ones.
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// Every moe_layer_interval-th of the layers from start to end.
std::vector<bool> read_mixed(const ConfigReader& config, std::size_t layers) {
  const std::size_t step = require_size(config, "moe_layer_interval", 1);
  const std::size_t start = config.size("moe_layer_start_index").value_or(1);
  const double end = config.number("moe_layer_end_index").value_or(-1);
  std::vector<bool> mixed;
  for (std::size_t l = 0; l < layers; ++l) {
    mixed.push_back((l + 1) % step == 0 && l >= start &&
                    (end == -1 || static_cast<double>(l) <= end));
  }
  return mixed;
}

// Keys of the code that came with the first checkpoints.
void read_others(const ConfigReader& config) {
  for (const char* key : {"moe_capacity", "num_nextn_predict_layers"}) {
    config.ignore(key);
  }
  require_flag(config, "use_rmsnorm", true);
  require_flag(config, "moe_use_aux_free", true);
  if (config.text("moe_gate").value_or("topk") != "topk") {
    config.unsupported("moe_gate", "topk");
  }
  // The smallest sum by which weights are divided.
  if (!(config.number("moe_norm_min").value_or(1e-12) <= 1e-9)) {
    config.unsupported("moe_norm_min", "1e-12");
  }
}

MixtureOfExperts read_mixture(const ConfigReader& config, const GatedMlp& dense,
                              Architecture& arch) {
  MixtureOfExperts mixture{
      .route =
          read_route(config, {"moe_num_experts", "num_experts"}, 64, 6, arch,
                     config.has("moe_k") ? "moe_k" : "num_experts_per_tok"),
      .ffn = require_size(config, "moe_intermediate_size", 1536),
      .hidden = dense.hidden,
      .activation = dense.activation,
      .correction_bias = "mlp.moe_statics.e_score_correction_bias",
      .correction_row = true};
  mixture.route.normalize = true;
  const std::size_t shared = config.size("moe_num_shared_experts").value_or(2);
  if (shared != 0) {
    mixture.shared = dense;
    mixture.shared->prefix = "mlp.shared_experts.";
    mixture.shared->ffn = shared * mixture.ffn;
  }
  return mixture;
}

}  // namespace

void describe_ernie4_5_moe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 12288,
              .default_max_positions = 131072,
              .default_kv_heads = 4},
             arch);
  read_others(config);
  const NormOptions norm{.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)};
  arch.final_norm_options = norm;
  arch.ropes = {read_whole_rope(config, arch, 5e5)};
  read_tied_head(config, true, arch);
  const bool bias = config.flag("use_bias").value_or(false);
  arch.head_bias = bias;
  const SelfAttention attention{.hidden = arch.hidden,
                                .qkv_bias = bias,
                                .o_bias = bias,
                                .rope = RopeOp{.rope = 0,
                                               .head_dim = arch.head_dim,
                                               .style = RopeStyle::kPairs},
                                .attention = attention_of(arch)};
  const GatedMlp dense{
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu"),
      .bias = bias};
  const MixtureOfExperts mixture = read_mixture(config, dense, arch);
  set_blocks_by(arch, read_mixed(config, arch.layers), [&](bool experts) {
    ProgramBuilder program(arch.hidden);
    return sequential_block(
        {.options = norm}, program,
        [&](ValueId x) { return self_attention(program, x, attention); },
        [&](ValueId x) {
          return experts ? mixture_of_experts(program, x, mixture)
                         : gated_mlp(program, x, dense);
        });
  });
  arch.ffn = 0;
}

}  // namespace llmpress
