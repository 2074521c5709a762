// Rows of the table of architectures (gguf_architecture.h) beside the first
// ones: dense models of many makers, and mixtures with shared experts or biases.
#include <array>

#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_keys.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

// --- tensors

constexpr Names kStarcoderMlp[] = {
    {"blk.{}.ffn_up", "model.layers.{}.mlp.c_fc"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.c_proj"}};
constexpr Names kGlm4Block[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.post_attention_norm", "model.layers.{}.post_self_attn_layernorm"},
    {"blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.post_ffw_norm", "model.layers.{}.post_mlp_layernorm"},
    {"blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"}};
constexpr Names kCohereNorm[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"}};
constexpr Names kPhi2[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.final_layernorm"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.attn_q", "model.layers.{}.self_attn.q_proj"},
    {"blk.{}.attn_k", "model.layers.{}.self_attn.k_proj"},
    {"blk.{}.attn_v", "model.layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_output", "model.layers.{}.self_attn.dense"},
    {"blk.{}.ffn_up", "model.layers.{}.mlp.fc1"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.fc2"}};
constexpr Names kSharedExpert[] = {
    {"blk.{}.ffn_gate_inp_shexp", "model.layers.{}.mlp.shared_expert_gate",
     Change::kOneRow},
    {"blk.{}.ffn_gate_shexp", "model.layers.{}.mlp.shared_expert.gate_proj"},
    {"blk.{}.ffn_down_shexp", "model.layers.{}.mlp.shared_expert.down_proj"},
    {"blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_expert.up_proj"}};
constexpr Names kGptOssBlock[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.attn_sinks.weight", "model.layers.{}.self_attn.sinks",
     Change::kNone, true},
    {"blk.{}.ffn_gate_inp", "model.layers.{}.mlp.router"}};

constexpr auto kOlmo2 =
    joined(kEnds, kAttention, kHeadNorms, kNormsAfter, kMlp);
constexpr auto kLlamaLike = joined(kEnds, kNorms, kTurnedAttention, kMlp);
constexpr auto kPlain = joined(kEnds, kNorms, kAttention, kMlp);
constexpr auto kStarcoder2 = joined(kEnds, kNorms, kAttention, kStarcoderMlp);
constexpr auto kGlm4 = joined(kEnds, kGlm4Block, kAttention);
constexpr auto kCohere2 = joined(kEnds, kCohereNorm, kAttention, kMlp);
constexpr auto kQwen2Moe =
    joined(kEnds, kNorms, kAttention, kRouter, kExperts, kSharedExpert);
constexpr auto kGptOss = joined(kEnds, kGptOssBlock, kAttention, kExperts);

// --- numbers

constexpr GgufKey kRmsOfGlm4[] = {
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1.5625e-7}};
constexpr GgufKey kNormEpsilon[] = {
    {"attention.layer_norm_epsilon", "norm_epsilon", true, 1e-5}};
constexpr GgufKey kCohereScale[] = {
    {"logit_scale", "logit_scale", true, 0.0625},
    {"attention.sliding_window", "sliding_window", false, 4096}};
constexpr GgufKey kQwen2MoeSizes[] = {
    {"expert_count", "num_experts", false, 60},
    {"expert_used_count", "num_experts_per_tok", false, 4},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 1408},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size",
     false, 5632}};
constexpr GgufKey kGptOssSizes[] = {
    {"expert_count", "num_local_experts", false, 128},
    {"expert_used_count", "num_experts_per_tok", false, 4},
    {"expert_feed_forward_length", "intermediate_size", false, 2880},
    {"attention.sliding_window", "sliding_window", false, 128}};

constexpr auto kOlmo2Keys = joined(kSizes, kRmsOfOlmo);
constexpr auto kGraniteKeys = joined(kSizes, kRms, kGraniteScales);
constexpr auto kLayerNormKeys = joined(kSizes, kLayerNorm);
constexpr auto kStarcoder2Keys = joined(kSizes, kNormEpsilon);
constexpr auto kRmsKeys = joined(kSizes, kRms);
constexpr auto kGlm4Keys = joined(kSizes, kRmsOfGlm4);
constexpr auto kCohere2Keys = joined(kSizes, kLayerNorm, kCohereScale);
constexpr auto kQwen2MoeKeys = joined(kSizes, kRms, kQwen2MoeSizes);
constexpr auto kGptOssKeys = joined(kSizes, kRmsOfOlmo, kGptOssSizes);

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "olmo2",
                     .model_type = "olmo2",
                     .tensors = kOlmo2,
                     .keys = kOlmo2Keys,
                     .read = read_olmo2,
                     .write = write_olmo2,
                     .hf_class = "Olmo2ForCausalLM"},
    GgufArchitecture{.name = "granite",
                     .model_type = "granite",
                     .tensors = kLlamaLike,
                     .keys = kGraniteKeys,
                     .read = read_granite,
                     .write = write_granite,
                     .hf_class = "GraniteForCausalLM"},
    GgufArchitecture{.name = "stablelm",
                     .model_type = "stablelm",
                     .tensors = kPlain,
                     .keys = kLayerNormKeys,
                     .read = read_stablelm,
                     .write = write_stablelm,
                     .hf_class = "StableLmForCausalLM"},
    GgufArchitecture{.name = "starcoder2",
                     .model_type = "starcoder2",
                     .tensors = kStarcoder2,
                     .keys = kStarcoder2Keys,
                     .read = read_starcoder2,
                     .write = write_starcoder2,
                     .tied = true,
                     .hf_class = "Starcoder2ForCausalLM"},
    GgufArchitecture{.name = "smollm3",
                     .model_type = "smollm3",
                     .tensors = kLlamaLike,
                     .keys = kRmsKeys,
                     .read = read_smollm3,
                     .write = write_smollm3,
                     .rope_theta = 2e6,
                     .tied = true,
                     .hf_class = "SmolLM3ForCausalLM"},
    GgufArchitecture{.name = "glm4",
                     .model_type = "glm4",
                     .tensors = kGlm4,
                     .keys = kGlm4Keys,
                     .read = read_glm4,
                     .write = write_glm4,
                     .head_dim = 128,
                     .hf_class = "Glm4ForCausalLM"},
    GgufArchitecture{.name = "cohere2",
                     .model_type = "cohere2",
                     .tensors = kCohere2,
                     .keys = kCohere2Keys,
                     .read = read_cohere2,
                     .write = write_cohere2,
                     .tied = true,
                     .hf_class = "Cohere2ForCausalLM"},
    GgufArchitecture{.name = "phi2",
                     .model_type = "phi",
                     .tensors = kPhi2,
                     .keys = kLayerNormKeys,
                     .read = read_phi2,
                     .write = write_phi2,
                     .hf_class = "PhiForCausalLM"},
    GgufArchitecture{.name = "qwen2moe",
                     .model_type = "qwen2_moe",
                     .tensors = kQwen2Moe,
                     .keys = kQwen2MoeKeys,
                     .read = read_qwen2_moe,
                     .write = write_qwen2_moe,
                     .hf_class = "Qwen2MoeForCausalLM"},
    GgufArchitecture{.name = "gpt-oss",
                     .model_type = "gpt_oss",
                     .tensors = kGptOss,
                     .keys = kGptOssKeys,
                     .read = read_gpt_oss,
                     .write = write_gpt_oss,
                     .head_dim = 64,
                     .rope_theta = 150000,
                     .hf_class = "GptOssForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> wider_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress
