// What the keys of several mixtures of experts have in common (gguf_keys.h):
// scores, groups of experts, layers without them.
#pragma once

#include <cstddef>

#include "formats/gguf/gguf_keys.h"

namespace llmpress {

// Values of expert_gating_func.
inline constexpr std::size_t kGgufSoftmax = 1, kGgufSigmoid = 2;

// norm_topk_prob, n_group and topk_group.
void read_gguf_sigmoid(const GgufReading& in, JsonFields& out);
// The same, with what the class takes for groups; `experts` is the key of their
// number.
struct GgufGroups {
  std::size_t groups = 1, kept = 1;
  std::string_view experts = "n_routed_experts";
  bool normalizes = true;
};
void write_gguf_sigmoid(const GgufWriting& out, const GgufGroups& usual = {});

// Experts in every layer from `dense` on.
void check_gguf_mixed_layers(const GgufWriting& out, std::size_t dense);

}  // namespace llmpress
