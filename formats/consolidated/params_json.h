// params.json of Meta's and Mistral's own releases as config.json.
//
//   dim, n_layers, n_heads, n_kv_heads, norm_eps, vocab_size, rope_theta
//   Meta:     multiple_of, ffn_dim_multiplier: width of the MLP, as
//             meta-llama/llama computes it; use_scaled_rope (Llama 3.1 and on)
//   Mistral:  hidden_dim, head_dim, sliding_window, moe
#pragma once

#include <cstddef>
#include <string>

#include "compress/core/dtype.h"

namespace llmpress {

// What the tensors say.
struct ConsolidatedTensors {
  std::size_t rows = 0, columns = 0;  // of the embedding's part
  std::size_t parts = 1;
  DType dtype = DType::kBF16;  // of the embedding
  bool has_head = true;
};

struct ConsolidatedParams {
  std::size_t hidden = 0, heads = 0, kv_heads = 0;
  std::string config_json{};
};

// `where` stands in front of messages. Throws Error(kCorruptFile) if `text` is
// not a JSON object, kInvalidInput for a value that is missing or out of range,
// kUnsupported naming the key for one that is not known and not off.
ConsolidatedParams read_params_json(const std::string& text,
                                    const ConsolidatedTensors& tensors,
                                    const std::string& where);

// Meta's width of the MLP: 2/3 of 4 dim, times the multiplier, up to the next
// multiple.
std::size_t llama_ffn(std::size_t dim, double multiplier,
                      std::size_t multiple_of);

}  // namespace llmpress
