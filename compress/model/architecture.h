// A decoder described by data: what config.json says, as a list of Linears,
// the stages that run them, and the places where per-channel scales can be
// folded. No architecture is known by name outside architecture.cpp.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/kernels/activations.h"

namespace llmpress {

enum class NormKind { kRms, kLayer };

// Rotary embedding (arXiv:2104.09864), half-split as in Hugging Face.
enum class RopeScaling { kNone, kLinear, kLlama3, kYarn };
struct RopeConfig {
  double theta = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  double attention_factor = 1;             // yarn: multiplies cos, sin
  bool truncate = true;                    // yarn: whole dimensions as bounds
  std::size_t original_max_positions = 0;  // llama3, yarn
};

// A Linear of a block. `name` is within the block: "self_attn.q_proj".
struct LinearSpec {
  std::string name;
  std::size_t out = 0, in = 0;
  bool bias = false;
  std::size_t stage = 0;  // index into BlockSpec::stages
};

// What a stage's Linears are for; decides the glue between stages.
enum class StageKind {
  kAttentionInput,   // q, k, v of the attention norm's output
  kAttentionOutput,  // o of the mixed heads; adds to the residual
  kMlpInput,         // gate and up (or fc1) of the MLP norm's output
  kMlpOutput,        // down (or fc2) of the activation; adds to the residual
};

// Linears that read the same input, in the order in which they are compressed.
struct StageSpec {
  StageKind kind = StageKind::kAttentionInput;
  std::string name;                  // "attention_input"
  std::vector<std::size_t> linears;  // indices into BlockSpec::linears
  std::size_t in = 0;                // width of the shared input
};

// A place where diag(1/s) can leave the source and diag(s) enter the consumers
// without changing the function. The source is a norm's gain (and bias), or the
// rows (and bias) of a Linear whose outputs reach the consumers elementwise.
struct ScaleGroup {
  std::string source_norm;                   // "input_layernorm", or empty
  std::optional<std::size_t> source_linear;  // index into linears
  std::vector<std::size_t> consumers;        // indices into linears
};

struct BlockSpec {
  std::vector<LinearSpec> linears;
  std::vector<StageSpec> stages;  // in execution order
  std::vector<ScaleGroup> scale_groups;
  std::vector<std::string> norms;        // "input_layernorm", ...
  std::string attention_norm, mlp_norm;  // names among `norms`
  std::string query_norm, key_norm;      // per-head norms (Qwen3), or empty
};

struct Architecture {
  std::string model_type;  // "llama"
  std::size_t hidden = 0, ffn = 0, layers = 0;
  std::size_t heads = 0, kv_heads = 0, head_dim = 0;
  std::size_t vocabulary = 0, max_positions = 0;
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  Activation activation = Activation::kSilu;
  bool gated_mlp = true;
  bool tied_head = false;
  std::optional<std::size_t> sliding_window{};  // keys seen, the query included
  std::vector<bool> layer_uses_window{};        // [layers]; empty: all or none
  RopeConfig rope{};
  std::optional<std::size_t> bos_id{}, eos_id{};  // the first where a list
  std::vector<std::size_t> eos_ids{};             // all of them

  std::string embedding = "model.embed_tokens";
  std::string final_norm = "model.norm";
  std::string head = "lm_head";
  std::string block_prefix = "model.layers.";
  BlockSpec block{};  // the same for every layer

  // "model.layers.3" and "model.layers.3.self_attn.q_proj".
  std::string block_name(std::size_t layer) const;
  std::string linear_name(std::size_t layer, std::size_t linear) const;
  bool uses_window(std::size_t layer) const;
  std::size_t query_width() const { return heads * head_dim; }
  std::size_t kv_width() const { return kv_heads * head_dim; }
};

// From the text of config.json. Knows llama, mistral, qwen2, qwen3. Keys that
// are absent have the defaults of the Hugging Face configuration class. Throws
// Error(kUnsupported) naming the key and what is supported, kInvalidInput for
// sizes that are missing or do not fit together (heads not a multiple of
// kv_heads, ...). `origin` stands in front of messages.
Architecture parse_architecture(const std::string& config_json,
                                const std::string& origin);

}  // namespace llmpress
