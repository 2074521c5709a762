// Hunyuan: heads are normed after they have turned. Hunyuan-A13B has a mixture
// of experts beside an MLP for all tokens in every layer.
#include <cmath>
#include <string_view>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// "dynamic" with an alpha is not dynamic: theta alpha^(d / (d - 2)), whatever
// the length of the text.
RopeConfig read_alpha_rope(const ConfigReader& config,
                           const Architecture& arch) {
  const auto rope = find_rope(config);
  const double alpha = rope ? rope->number("alpha").value_or(0) : 0;
  const auto older = rope ? rope->text("type") : std::nullopt;
  if (alpha == 0 || rope->text("rope_type").value_or(older.value_or("")) !=
                        std::string_view("dynamic")) {
    return read_whole_rope(config, arch);
  }
  if (!(alpha > 0)) rope->invalid("alpha", "a positive number");
  if (arch.head_dim <= 2) config.invalid("head_dim", "more than 2");
  for (const char* key :
       {"beta_fast", "beta_slow", "factor", "mscale", "mscale_all_dim"}) {
    rope->ignore(key);
  }
  const double beside = config.number("rope_theta").value_or(10000);
  const auto d = static_cast<double>(arch.head_dim);
  const RopeConfig turned{.dim = arch.head_dim,
                          .theta = rope->number("rope_theta").value_or(beside) *
                                   std::pow(alpha, d / (d - 2))};
  if (!(turned.theta > 1)) config.invalid("rope_theta", "a number above 1");
  if (turned.dim % 2 != 0) config.invalid("head_dim", "an even number");
  return turned;
}

// Keys of the code that came with the first checkpoints.
void read_others(const ConfigReader& config) {
  for (const char* key : {"anyres_pooling_size",
                          "class_num",
                          "cla_share_factor",
                          "dense_list",
                          "eod_token_id",
                          "im_end_id",
                          "im_newline_id",
                          "im_start_id",
                          "image_token_id",
                          "mask_init_id",
                          "num_media_embeds",
                          "org_vocab_size",
                          "pad_id",
                          "pool_type",
                          "text_end_id",
                          "text_start_id",
                          "video_end_id",
                          "video_start_id",
                          "attention_head_dim",
                          "capacity_factor",
                          "moe_drop_tokens",
                          "moe_random_routing_dropped_token"}) {
    config.ignore(key);
  }
  require_flag(config, "use_qk_norm", true);
  require_flag(config, "use_rotary_pos_emb", true);
  require_flag(config, "use_cla", false);
  require_flag(config, "mlp_bias", false);
  require_flag(config, "position_embedding_xdrope", false);
  if (config.text("norm_type").value_or("rms") != "rms") {
    config.unsupported("norm_type", "rms");
  }
}

SelfAttention read_attention(const ConfigReader& config, Architecture& arch) {
  arch.ropes = {read_alpha_rope(config, arch)};
  arch.final_norm_options = {.epsilon =
                                 read_epsilon(config, "rms_norm_eps", 1e-5)};
  read_tied_head(config, false, arch);
  const bool bias = config.flag("attention_bias").value_or(false);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = bias,
                          .o_bias = bias,
                          .qk_norm = arch.final_norm_options,
                          .q_norm = "query_layernorm",
                          .k_norm = "key_layernorm",
                          .norm_after_rope = true,
                          .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                          .attention = attention_of(arch)};
  attention.qk_norm->unit = arch.head_dim;
  return attention;
}

// One value for all layers, or one a layer.
std::vector<std::size_t> by_layer(const ConfigReader& config,
                                  std::string_view key, std::size_t layers,
                                  std::size_t fallback) {
  std::vector<std::size_t> values = config.sizes(key);
  if (values.empty()) values = {fallback};
  if (values.size() == 1) values.assign(layers, values.front());
  if (values.size() != layers) {
    config.invalid(key, formatted("one size, or {} of them", layers));
  }
  return values;
}

void require_all(const ConfigReader& config, std::string_view key,
                 std::size_t wanted) {
  for (const std::size_t value : config.sizes(key)) {
    if (value != wanted) config.unsupported(key, std::to_string(wanted));
  }
}

}  // namespace

void describe_hunyuan_v1_dense(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {}, arch);
  read_others(config);
  require_all(config, "num_experts", 1);
  const SelfAttention attention = read_attention(config, arch);
  const GatedMlp mlp{
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu")};
  ProgramBuilder program(arch.hidden);
  set_blocks(arch, sequential_block(
                       {.options = arch.final_norm_options}, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return gated_mlp(program, x, mlp); }));
}

void describe_hunyuan_v1_moe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {}, arch);
  read_others(config);
  require_flag(config, "use_mixed_mlp_moe", true);
  require_all(config, "moe_intermediate_size", arch.ffn);
  require_all(config, "num_shared_expert", 1);
  require_all(config, "moe_layer_num_skipped", 0);
  const SelfAttention attention = read_attention(config, arch);
  const GatedMlp shared{
      .prefix = "mlp.shared_mlp.",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu")};
  arch.keys.experts = {config.has("num_experts") ? "num_experts"
                                                 : "num_local_experts"};
  const std::size_t experts = require_size(config, arch.keys.experts[0], 1);
  const std::string_view top_key =
      config.has("moe_topk") ? "moe_topk" : "num_experts_per_tok";
  set_blocks_by(
      arch, by_layer(config, top_key, arch.layers, 1), [&](std::size_t top) {
        if (top == 0 || top > experts) {
          config.invalid(top_key,
                         formatted("from 1 to the {} experts", experts));
        }
        const MixtureOfExperts mixture{
            .route = {.experts = experts, .top = top, .normalize = true},
            .ffn = arch.ffn,
            .hidden = arch.hidden,
            .activation = shared.activation,
            .shared = shared,
            .router = "mlp.gate.wg"};
        ProgramBuilder program(arch.hidden);
        return sequential_block(
            {.options = arch.final_norm_options}, program,
            [&](ValueId x) { return self_attention(program, x, attention); },
            [&](ValueId x) { return mixture_of_experts(program, x, mixture); });
      });
  arch.ffn = 0;
}

}  // namespace llmpress
