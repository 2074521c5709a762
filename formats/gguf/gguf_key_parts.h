// What the keys of several architectures have in common (gguf_keys.h).
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>

#include "formats/gguf/gguf_keys.h"

namespace llmpress {

inline const std::initializer_list<std::string_view> kSilu{"silu", "swish"};

struct GgufHeads {
  std::size_t heads = 0, kv_heads = 0, head_dim = 0, hidden = 0;
};

// Throw Error(kUnsupported) naming the key of the metadata.
[[noreturn]] void unsupported_gguf_key(const GgufReading& in,
                                       std::string_view key,
                                       std::string_view wanted);

// At least one.
std::size_t gguf_heads(const GgufReading& in);
std::size_t gguf_head_dim(const GgufReading& in);
// num_key_value_heads and head_dim; the rotary embedding turns whole heads.
void read_gguf_heads(const GgufReading& in, JsonFields& out);
// The same, and how much of a head it turns: [0, 1].
double read_partial_gguf_heads(const GgufReading& in, JsonFields& out);
// The same, and the rotary embedding with partial_rotary_factor.
void read_partial_gguf_rope(const GgufReading& in, JsonFields& out);
void read_gguf_attention_bias(const GgufReading& in, JsonFields& out);

GgufHeads gguf_heads(const GgufWriting& out);
// Heads and their length; the rotary embedding turns whole heads.
GgufHeads write_gguf_heads(const GgufWriting& out);
// Heads, their length, and the rotary embedding of all of them or, where
// config.json says so, of a part.
void write_gguf_whole_rope(const GgufWriting& out);
void write_partial_gguf_rope(const GgufWriting& out, double usual);

// Windows that the architecture has no key for: those that the context never
// fills are none, and those that a flag turns off.
void refuse_gguf_window(const GgufWriting& out,
                        std::string_view usual_flag = {});
// layer_types in which every `period`th layer sees all, or, where `first`, those
// before it in turn.
std::string gguf_layer_types(std::size_t layers, std::size_t period);
void check_gguf_layer_types(const GgufWriting& out, std::size_t period);
// layer_types as metadata says it: for each layer whether it is of the first
// kind, or by a period, every `period`th layer being of the second.
std::string read_gguf_layer_types(const GgufReading& in,
                                  std::string_view windowed,
                                  std::string_view other, std::size_t period);
// The same of linear attention: attention.recurrent_layers, or every `period`th
// layer attends.
std::string read_gguf_recurrent_layers(const GgufReading& in,
                                       std::size_t period);
// attention.sliding_window_pattern from layer_types.
void write_gguf_layer_types(const GgufWriting& out, std::string_view windowed,
                            std::size_t period);
// What llama.cpp computes without being told.
void require_gguf_activation(const GgufWriting& out, std::string_view key,
                             std::initializer_list<std::string_view> known);
void refuse_gguf_flag(const GgufWriting& out, std::string_view key, bool usual);
void require_gguf_tied(const GgufWriting& out, bool wanted);
void require_gguf_number(const GgufWriting& out, std::string_view key,
                         double wanted);
// num_attention_heads * head_dim is hidden_size.
void require_gguf_square_heads(const GgufWriting& out);
void refuse_gguf_rope_scaling(const GgufWriting& out);

}  // namespace llmpress
