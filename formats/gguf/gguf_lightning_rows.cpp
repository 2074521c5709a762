// A row of the table of architectures (gguf_architecture.h): MiniMax-01, with
// lightning attention in most layers.
#include <array>

#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr Names kLightning[] = {
    {"blk.{}.attn_qkv", "model.layers.{}.self_attn.qkv_proj"},
    {"blk.{}.attn_gate", "model.layers.{}.self_attn.output_gate"},
    {"blk.{}.attn_norm_2", "model.layers.{}.self_attn.norm"},
    {"blk.{}.ffn_gate_inp", "model.layers.{}.block_sparse_moe.gate"},
    // Its name in files of transformers.
    {"blk.{}.ffn_gate_inp", "model.layers.{}.mlp.gate"},
    {"blk.{}.ffn_gate_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w1"},
    {"blk.{}.ffn_down_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w2"},
    {"blk.{}.ffn_up_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w3"}};
constexpr Names kLightningOut[] = {
    {"blk.{}.attn_output", "model.layers.{}.self_attn.out_proj", Change::kNone,
     false, "blk.{}.attn_qkv.weight"}};
constexpr auto kMiniMax =
    joined(kEnds, kNorms, kLightningOut, kLightning, kAttention);

constexpr GgufKey kMiniMaxSizes[] = {
    {"expert_count", "num_local_experts", false, 8},
    {"expert_used_count", "num_experts_per_tok", false, 2}};
constexpr auto kMiniMaxKeys = joined(kSizes, kRmsOfOlmo, kMiniMaxSizes);

constexpr std::string_view kRecurrent = "attention.recurrent_layers";
constexpr const char* kParts[] = {"full_attn", "linear_attn", "mlp"};

void read_minimax(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out["layer_types"] = read_gguf_recurrent_layers(in, 8);
  const double kept = in.number("residual_scale").value_or(1);
  for (const std::string part : kParts) {
    out[part + "_alpha_factor"] = json_number(kept);
    out[part + "_beta_factor"] = "1.0";
  }
}

void write_minimax(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_window(out);
  refuse_gguf_rope_scaling(out);
  const double kept = config.number("full_attn_alpha_factor").value_or(1);
  for (const std::string part : kParts) {
    const std::string alpha = part + "_alpha_factor";
    if (config.number(alpha).value_or(1) != kept) {
      config.unsupported(alpha, "one for all parts: llama.cpp has one");
    }
    require_gguf_number(out, part + "_beta_factor", 1);
  }
  out.number("residual_scale", kept);
  const std::size_t layers = config.size("num_hidden_layers").value_or(32);
  const auto types = config.texts("layer_types");
  std::vector<bool> recurrent;
  for (std::size_t l = 0; l < layers; ++l) {
    recurrent.push_back(l < types.size() ? types[l] == "linear_attention"
                                         : l % 2 != 0);
  }
  out.metadata.set_array(
      std::string(out.architecture) + "." + std::string(kRecurrent), recurrent);
  write_gguf_whole_rope(out);
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "minimax-01",
                     .model_type = "minimax",
                     .tensors = kMiniMax,
                     .keys = kMiniMaxKeys,
                     .read = read_minimax,
                     .write = write_minimax,
                     .rope_theta = 1e6,
                     .hf_class = "MiniMaxForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> lightning_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress
