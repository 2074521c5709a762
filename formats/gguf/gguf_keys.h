// What metadata and config.json say of each architecture beside plain numbers:
// heads, rotary embedding, biases that are there or not. Each pair goes both
// ways. Reading throws Error(kUnsupported) naming the key for what no
// config.json says, writing for what llama.cpp has no key for.
#pragma once

#include "formats/gguf/gguf_architecture.h"

namespace llmpress {

void read_llama(const GgufReading& in, JsonFields& out);
void write_llama(const GgufWriting& out);
void read_qwen(const GgufReading& in, JsonFields& out);
void write_qwen(const GgufWriting& out);
void read_qwen3_moe(const GgufReading& in, JsonFields& out);
void write_qwen3_moe(const GgufWriting& out);
void read_gemma(const GgufReading& in, JsonFields& out);
void write_gemma(const GgufWriting& out);
void read_gemma2(const GgufReading& in, JsonFields& out);
void write_gemma2(const GgufWriting& out);
void read_gemma3(const GgufReading& in, JsonFields& out);
void write_gemma3(const GgufWriting& out);
void read_phi3(const GgufReading& in, JsonFields& out);
void write_phi3(const GgufWriting& out);
void read_gpt2(const GgufReading& in, JsonFields& out);
void write_gpt2(const GgufWriting& out);

// --- gguf_wider_keys.cpp

void read_olmo2(const GgufReading& in, JsonFields& out);
void write_olmo2(const GgufWriting& out);
void read_granite(const GgufReading& in, JsonFields& out);
void write_granite(const GgufWriting& out);
void read_stablelm(const GgufReading& in, JsonFields& out);
void write_stablelm(const GgufWriting& out);
void read_starcoder2(const GgufReading& in, JsonFields& out);
void write_starcoder2(const GgufWriting& out);
void read_smollm3(const GgufReading& in, JsonFields& out);
void write_smollm3(const GgufWriting& out);
void read_glm4(const GgufReading& in, JsonFields& out);
void write_glm4(const GgufWriting& out);
void read_cohere2(const GgufReading& in, JsonFields& out);
void write_cohere2(const GgufWriting& out);
void read_phi2(const GgufReading& in, JsonFields& out);
void write_phi2(const GgufWriting& out);
void read_qwen2_moe(const GgufReading& in, JsonFields& out);
void write_qwen2_moe(const GgufWriting& out);
void read_gpt_oss(const GgufReading& in, JsonFields& out);
void write_gpt_oss(const GgufWriting& out);

// --- gguf_rope.cpp

// rope.freq_base, rope.scaling.* and the divisors of frequencies in
// rope_freqs.weight (which Llama 3's scaling becomes, so that it comes back as
// "longrope" with the same divisors at any length).
void read_gguf_rope(const GgufReading& in, JsonFields& out);
void write_gguf_rope(const GgufWriting& out, std::size_t head_dim,
                     double default_theta);
// What else an architecture's keys say of YaRN.
struct GgufYarn {
  bool betas = false;         // corners of the ramp
  double log_multiplier = 0;  // in place of mscale and mscale_all_dim
};
// The same of this object of config.json.
void write_gguf_rope_of(const GgufWriting& out,
                        const std::optional<ConfigReader>& rope,
                        std::size_t head_dim, double default_theta,
                        const GgufYarn& yarn = {});
// LongRoPE of Phi-3: rope_factors_short.weight and rope_factors_long.weight.
void read_gguf_long_rope(const GgufReading& in, JsonFields& out);
void write_gguf_long_rope(const GgufWriting& out, std::size_t head_dim);

// "[1.5, 2]": numbers as JSON text that reads back as the same floats.
std::string json_numbers(std::span<const float> values);
std::string json_flag(bool flag);
std::string json_number(double value);
std::string json_text(std::string_view text);

}  // namespace llmpress
