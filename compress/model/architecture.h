// A decoder described by data: what config.json says, as block programs
// (program.h) and what stands around the blocks. No architecture is known by
// name outside families/.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "compress/model/program.h"
#include "compress/model/program_builder.h"
#include "compress/model/rope_config.h"
#include "formats/linears/loader_rules.h"

namespace llmpress {

// Where config.json says the sizes that structured pruning changes.
struct ConfigKeys {
  std::string hidden = "hidden_size", ffn = "intermediate_size",
              layers = "num_hidden_layers", heads = "num_attention_heads";
  bool free_heads = true;  // head_dim and num_key_value_heads are keys
  // Of the number of experts: those that are there, or the one that could be.
  std::vector<std::string> experts{};
};

// Another way of naming the tensors: what stands in front of the body's names
// and what the head is called.
struct TensorPlaces {
  std::string body{}, head = "lm_head";
};

// What Gemma 3n and 4 give every block beside the stream:
//   (norm(projection(x) / sqrt(hidden)) + sqrt(width) table[token]) / sqrt(2)
// [tokens, layers * width], where x is the stream before the first block and
// the norm runs over `width` columns.
struct LayerInputs {
  std::size_t width = 0, vocabulary = 0;  // width 0: nothing
  std::string embedding{}, projection{}, norm{};
  float epsilon = 1e-6f;
};

// The family's class in transformers, as far as packed weights ask (loader_rules.h).
struct HfClass {
  std::string block_prefix{}, head{};  // in the class; see Architecture
  ExpertModules experts = ExpertModules::kStacked;
  bool reads_weights_early = false;
};

struct Architecture {
  std::string model_type;  // "llama"
  ConfigKeys keys{};
  HfClass hf_class{};
  std::string config_object{};  // in which they stand; empty: config.json
  std::size_t hidden = 0, layers = 0;
  std::size_t vocabulary = 0, max_positions = 0;
  // Of the attention and the MLP of dense decoders; 0 where a family has no one
  // such number.
  std::size_t ffn = 0, heads = 0, kv_heads = 0, head_dim = 0;
  std::optional<std::size_t> bos_id{}, eos_id{};  // the first where a list
  std::vector<std::size_t> eos_ids{};             // all of them

  // x = embedding[token] * embedding_scale (+ positions[p + position_offset])
  // (then a projection to the hidden size, then a norm).
  std::string embedding = "model.embed_tokens";
  float embedding_scale = 1;
  std::size_t embedding_width = 0;   // 0: hidden
  std::string position_embedding{};  // empty: none
  std::size_t position_offset = 0;
  std::string embedding_projection{};  // a Linear; empty: none
  std::string embedding_norm{};        // empty: none
  NormOptions embedding_norm_options{};

  LayerInputs layer_inputs{};  // channel 0 of the carried values

  // logits = softcap(logit_scale * head(projection(norm(x)))).
  std::string final_norm = "model.norm";  // empty: none, or no weights
  NormOptions final_norm_options{};
  std::string head_projection{};  // a Linear to the embedding's width
  std::string head = "lm_head";
  bool tied_head = false, head_bias = false;
  float logit_scale = 1, logit_softcap = 0;

  std::string block_prefix = "model.layers.";
  // What stands in front of all these names but the head's, and what may stand
  // there in other checkpoints of the family.
  std::string body = "model.";
  std::vector<TensorPlaces> other_places{};
  std::vector<RopeConfig> ropes{};
  std::vector<BlockSpec> kinds{};            // of blocks
  std::vector<std::size_t> kind_of_layer{};  // [layers], indices into kinds

  const BlockSpec& block(std::size_t layer) const {
    return kinds[kind_of_layer[layer]];
  }
  std::size_t input_width() const {
    return embedding_width == 0 ? hidden : embedding_width;
  }
  // "model.layers.3" and "model.layers.3.self_attn.q_proj".
  std::string block_name(std::size_t layer) const;
  std::string linear_name(std::size_t layer, std::size_t linear) const;
  std::vector<std::string> linear_names() const;  // of all blocks, in order
  // What a sequence's cache holds, layer by layer.
  std::vector<std::vector<CacheSlot>> cache_slots() const;
  std::size_t query_width() const { return heads * head_dim; }
  std::size_t kv_width() const { return kv_heads * head_dim; }
};

// From the text of config.json; `known_families()` lists what it knows. Keys
// that are absent have the defaults of the Hugging Face configuration class.
// Throws Error(kUnsupported) naming the key and what is supported, also for a
// key that the family does not know; kInvalidInput for sizes that are missing
// or do not fit together (heads not a multiple of kv_heads, ...). `origin`
// stands in front of messages.
Architecture parse_architecture(const std::string& config_json,
                                const std::string& origin);

std::vector<std::string> known_families();

// Names everything as `places` says.
void move_tensors(Architecture& arch, const TensorPlaces& places);

}  // namespace llmpress
