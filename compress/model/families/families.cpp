#include <array>

#include "compress/model/families/family.h"

namespace llmpress {
namespace {

constexpr std::array kFamilies = {
    Family{"bloom", describe_bloom},
    Family{"cohere2", describe_cohere2},
    Family{"deepseek_v2", describe_deepseek_v2},
    Family{"deepseek_v3", describe_deepseek_v3},
    Family{"exaone4", describe_exaone4},
    Family{"falcon", describe_falcon},
    Family{"falcon_h1", describe_falcon_h1},
    Family{"gemma", describe_gemma},
    Family{"gemma2", describe_gemma2},
    Family{"gemma3_text", describe_gemma3_text},
    Family{"gemma4_text", describe_gemma4_text},
    Family{"glm", describe_glm},
    Family{"glm4", describe_glm4},
    Family{"glm4_moe", describe_glm4_moe},
    Family{"gpt2", describe_gpt2},
    Family{"gpt_neox", describe_gpt_neox},
    Family{"gpt_oss", describe_gpt_oss},
    Family{"gptj", describe_gptj},
    Family{"granite", describe_granite},
    Family{"granitemoehybrid", describe_granitemoehybrid},
    Family{"jamba", describe_jamba},
    Family{"lfm2", describe_lfm2},
    Family{"llama", describe_llama},
    Family{"llama4_text", describe_llama4_text},
    Family{"mamba2", describe_mamba2},
    Family{"minimax", describe_minimax},
    Family{"ministral3", describe_ministral3},
    Family{"mistral", describe_mistral},
    Family{"mixtral", describe_mixtral},
    Family{"nemotron_h", describe_nemotron_h},
    Family{"olmo2", describe_olmo2},
    Family{"olmo3", describe_olmo3},
    Family{"olmoe", describe_olmoe},
    Family{"opt", describe_opt},
    Family{"phi", describe_phi},
    Family{"phi3", describe_phi3},
    Family{"phimoe", describe_phimoe},
    Family{"qwen2", describe_qwen2},
    Family{"qwen2_5_vl", describe_qwen2_vl},
    Family{"qwen2_5_vl_text", describe_qwen2_vl},
    Family{"qwen2_moe", describe_qwen2_moe},
    Family{"qwen2_vl", describe_qwen2_vl},
    Family{"qwen2_vl_text", describe_qwen2_vl},
    Family{"qwen3", describe_qwen3},
    Family{"qwen3_5_text", describe_qwen3_5_text},
    Family{"qwen3_moe", describe_qwen3_moe},
    Family{"qwen3_vl_text", describe_qwen3_vl_text},
    Family{"qwen3_next", describe_qwen3_next},
    Family{"recurrent_gemma", describe_recurrent_gemma},
    Family{"rwkv", describe_rwkv},
    Family{"smollm3", describe_smollm3},
    Family{"stablelm", describe_stablelm},
    Family{"starcoder2", describe_starcoder2},
};

}  // namespace

std::span<const Family> families() { return kFamilies; }

}  // namespace llmpress
