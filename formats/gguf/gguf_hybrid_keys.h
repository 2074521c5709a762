// What the keys of architectures with attention in some layers alone have in
// common (gguf_keys.h).
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "formats/gguf/gguf_keys.h"

namespace llmpress {

// attention.head_count_kv layer by layer: 0 where there is no attention.
struct GgufLayerHeads {
  std::size_t kv_heads = 0;
  std::vector<bool> attends{};
};
// At least one layer attends.
GgufLayerHeads read_gguf_layer_heads(const GgufReading& in);
void write_gguf_layer_heads(const GgufWriting& out,
                            const GgufLayerHeads& heads);

// Of Mamba-2: heads, groups, state and kernel as `mamba_*` of config.json; and
// the checks that llama.cpp's mixer asks for.
void read_gguf_mixer(const GgufReading& in, JsonFields& out);
void write_gguf_mixer(const GgufWriting& out, std::size_t inner);
// The limits of time steps, which llama.cpp has not.
void refuse_gguf_time_step_limit(const GgufWriting& out);

// The layers l with l % first == second, if they are those that `chosen` says.
std::pair<std::size_t, std::size_t> gguf_period_of(
    const std::vector<bool>& chosen, const GgufReading& in,
    std::string_view key);

}  // namespace llmpress
