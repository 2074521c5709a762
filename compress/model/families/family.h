// A family of decoders: one file that reads its config.json and writes the
// programs of its blocks. families.cpp is the table of them.
#pragma once

#include <span>
#include <string_view>

#include "compress/model/architecture.h"
#include "formats/checkpoints/config_reader.h"

namespace llmpress {

struct Family {
  std::string_view model_type;
  // Fills in all of `arch` but model_type, vocabulary, bos and eos. Throws as
  // parse_architecture() does.
  void (*describe)(const ConfigReader& config, Architecture& arch);
};

std::span<const Family> families();

// Of the files of this folder.
void describe_arcee(const ConfigReader& config, Architecture& arch);
void describe_bamba(const ConfigReader& config, Architecture& arch);
void describe_bloom(const ConfigReader& config, Architecture& arch);
void describe_codegen(const ConfigReader& config, Architecture& arch);
void describe_cohere(const ConfigReader& config, Architecture& arch);
void describe_cohere2(const ConfigReader& config, Architecture& arch);
void describe_cwm(const ConfigReader& config, Architecture& arch);
void describe_deepseek_v2(const ConfigReader& config, Architecture& arch);
void describe_deepseek_v3(const ConfigReader& config, Architecture& arch);
void describe_dots1(const ConfigReader& config, Architecture& arch);
void describe_ernie4_5(const ConfigReader& config, Architecture& arch);
void describe_ernie4_5_moe(const ConfigReader& config, Architecture& arch);
void describe_exaone(const ConfigReader& config, Architecture& arch);
void describe_exaone4(const ConfigReader& config, Architecture& arch);
void describe_exaone_moe(const ConfigReader& config, Architecture& arch);
void describe_falcon(const ConfigReader& config, Architecture& arch);
void describe_falcon_h1(const ConfigReader& config, Architecture& arch);
void describe_falcon_mamba(const ConfigReader& config, Architecture& arch);
void describe_flex_olmo(const ConfigReader& config, Architecture& arch);
void describe_gemma(const ConfigReader& config, Architecture& arch);
void describe_gemma2(const ConfigReader& config, Architecture& arch);
void describe_gemma3_text(const ConfigReader& config, Architecture& arch);
void describe_gemma4_text(const ConfigReader& config, Architecture& arch);
void describe_glm(const ConfigReader& config, Architecture& arch);
void describe_glm4(const ConfigReader& config, Architecture& arch);
void describe_glm4_moe(const ConfigReader& config, Architecture& arch);
void describe_glm4_moe_lite(const ConfigReader& config, Architecture& arch);
void describe_gpt2(const ConfigReader& config, Architecture& arch);
void describe_gpt_bigcode(const ConfigReader& config, Architecture& arch);
void describe_gpt_neo(const ConfigReader& config, Architecture& arch);
void describe_gpt_neox(const ConfigReader& config, Architecture& arch);
void describe_gpt_oss(const ConfigReader& config, Architecture& arch);
void describe_gptj(const ConfigReader& config, Architecture& arch);
void describe_granite(const ConfigReader& config, Architecture& arch);
void describe_granitemoe(const ConfigReader& config, Architecture& arch);
void describe_granitemoehybrid(const ConfigReader& config, Architecture& arch);
void describe_granitemoeshared(const ConfigReader& config, Architecture& arch);
void describe_helium(const ConfigReader& config, Architecture& arch);
void describe_hunyuan_v1_dense(const ConfigReader& config, Architecture& arch);
void describe_hunyuan_v1_moe(const ConfigReader& config, Architecture& arch);
void describe_jais2(const ConfigReader& config, Architecture& arch);
void describe_jamba(const ConfigReader& config, Architecture& arch);
void describe_lfm2(const ConfigReader& config, Architecture& arch);
void describe_lfm2_moe(const ConfigReader& config, Architecture& arch);
void describe_llama(const ConfigReader& config, Architecture& arch);
void describe_llama4_text(const ConfigReader& config, Architecture& arch);
void describe_mamba(const ConfigReader& config, Architecture& arch);
void describe_mamba2(const ConfigReader& config, Architecture& arch);
void describe_minimax(const ConfigReader& config, Architecture& arch);
void describe_minimax_m2(const ConfigReader& config, Architecture& arch);
void describe_ministral(const ConfigReader& config, Architecture& arch);
void describe_ministral3(const ConfigReader& config, Architecture& arch);
void describe_mistral(const ConfigReader& config, Architecture& arch);
void describe_mixtral(const ConfigReader& config, Architecture& arch);
void describe_mpt(const ConfigReader& config, Architecture& arch);
void describe_nemotron(const ConfigReader& config, Architecture& arch);
void describe_nemotron_h(const ConfigReader& config, Architecture& arch);
void describe_olmo(const ConfigReader& config, Architecture& arch);
void describe_olmo2(const ConfigReader& config, Architecture& arch);
void describe_olmo3(const ConfigReader& config, Architecture& arch);
void describe_olmoe(const ConfigReader& config, Architecture& arch);
void describe_opt(const ConfigReader& config, Architecture& arch);
void describe_persimmon(const ConfigReader& config, Architecture& arch);
void describe_phi(const ConfigReader& config, Architecture& arch);
void describe_phi3(const ConfigReader& config, Architecture& arch);
void describe_phimoe(const ConfigReader& config, Architecture& arch);
void describe_qwen2(const ConfigReader& config, Architecture& arch);
void describe_qwen2_moe(const ConfigReader& config, Architecture& arch);
void describe_qwen2_vl(const ConfigReader& config, Architecture& arch);
void describe_qwen3(const ConfigReader& config, Architecture& arch);
void describe_qwen3_5_moe_text(const ConfigReader& config, Architecture& arch);
void describe_qwen3_5_text(const ConfigReader& config, Architecture& arch);
void describe_qwen3_moe(const ConfigReader& config, Architecture& arch);
void describe_qwen3_next(const ConfigReader& config, Architecture& arch);
void describe_qwen3_vl_text(const ConfigReader& config, Architecture& arch);
void describe_recurrent_gemma(const ConfigReader& config, Architecture& arch);
void describe_rwkv(const ConfigReader& config, Architecture& arch);
void describe_seed_oss(const ConfigReader& config, Architecture& arch);
void describe_smollm3(const ConfigReader& config, Architecture& arch);
void describe_solar_open(const ConfigReader& config, Architecture& arch);
void describe_stablelm(const ConfigReader& config, Architecture& arch);
void describe_starcoder2(const ConfigReader& config, Architecture& arch);
void describe_vaultgemma(const ConfigReader& config, Architecture& arch);

}  // namespace llmpress
