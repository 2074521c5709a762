// Falcon-H1's factors (muP), which llama.cpp has no keys for. It multiplies the
// output of attention's and the mixer's Linears by "NAME.scale" [1]; what that
// cannot say goes into vectors, and into the embedding what is left. With the
// stream divided by s = down / gate and the embedding's rest c = embedding / s:
//
//   attn_q, attn_v          attention_in
//   attn_k                  attention_in key
//   attn_output, ssm_out    attention_out / s, mixer_out / s
//   ssm_in                  mixer_in parts[gate], parts[dt] being the same
//   ssm_conv1d              of x, B, C: parts[x] / parts[gate], ... its taps
//   ffn_norm                gate, its gain: of up too, hence s
//   norms                   epsilon / s^2
//   token_embd              c
//   output_norm             head, its gain, over c where the head is tied
//
// The factors themselves are kept as llmpress.multipliers, for the way back.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>

#include "formats/gguf/gguf_architecture.h"

namespace llmpress {

struct GgufMultipliers {
  float embedding = 1, head = 1, key = 1;
  float attention_in = 1, attention_out = 1, mixer_in = 1, mixer_out = 1;
  float gate = 1, down = 1;
  float output = 1;                           // of the last norm
  std::array<float, 5> parts{1, 1, 1, 1, 1};  // of gate, x, B, C, dt
};

// What the stream is divided by, and the embedding multiplied with.
float stream_divisor(const GgufMultipliers& m);
float embedding_factor(const GgufMultipliers& m);

// Throws Error(kUnsupported) for a factor of 0, and where gate and dt differ.
GgufMultipliers read_multipliers(const ConfigReader& config, bool tied);
bool has_multipliers(const ConfigReader& config);
void write_multipliers(const GgufMultipliers& m, JsonFields& out);

bool has_multipliers(const GgufMetadata& metadata);
// Absent: all 1.
GgufMultipliers read_multipliers(const GgufMetadata& metadata);
void write_multipliers(const GgufMultipliers& m, GgufMetadata& metadata);

// "blk.0.attn_k.scale" and its like, those that are not 1.
std::map<std::string, float> multiplier_scales(const GgufMultipliers& m,
                                               std::size_t layers);

}  // namespace llmpress
