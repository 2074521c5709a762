// Names of tensors, GGUF's and the folder's.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/gguf_architecture.h"

namespace llmpress {

// The other name of a tensor. `stacked`: one of a stack, `name` is the stack's
// in GGUF and has "{e}" for the expert's number in the folder.
struct GgufPlace {
  std::size_t block = 0;
  std::string name;
  GgufChange change = GgufChange::kNone;
  bool stacked = false;
  std::size_t expert = 0;  // of gguf_places()
};

// "blk.3.attn_q.weight" of a file in the folder; nullopt: no row has it. Without
// a file the first row with the name counts.
std::optional<GgufPlace> our_name(const GgufArchitecture& architecture,
                                  std::string_view tensor,
                                  const GgufFile* file = nullptr);
// "model.layers.3.self_attn.q_proj.weight" in GGUF: one, or the parts that it is
// there; empty: no row has it.
std::vector<GgufPlace> gguf_places(const GgufArchitecture& architecture,
                                   std::string_view tensor);

// Tensors that hold settings: divisors of the rotary embedding, scales.
bool is_gguf_setting(const GgufArchitecture& architecture,
                     std::string_view tensor);

}  // namespace llmpress
