// config.json of a Hugging Face model as plain values: what is written, without
// the defaults that a model class fills in. Keys that are absent or null are
// nullopt; keys that are not listed here are not looked at.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace llmpress {

// `rope_scaling`, or `rope_parameters` of newer files (which holds rope_theta
// too). The type may stand under "rope_type" or, in older files, "type".
struct RopeScalingConfig {
  std::optional<std::string> type{};
  std::optional<double> theta{};
  std::optional<double> factor{};
  std::optional<double> low_freq_factor{}, high_freq_factor{};
  std::optional<double> beta_fast{}, beta_slow{};
  std::optional<double> attention_factor{}, mscale{}, mscale_all_dim{};
  std::optional<double> partial_rotary_factor{};
  std::optional<std::size_t> original_max_position_embeddings{};
  std::optional<bool> truncate{};
};

struct ModelConfig {
  std::optional<std::string> model_type{}, hidden_act{};
  std::optional<std::size_t> hidden_size{}, intermediate_size{};
  std::optional<std::size_t> num_hidden_layers{}, num_attention_heads{};
  std::optional<std::size_t> num_key_value_heads{}, head_dim{};
  std::optional<std::size_t> vocab_size{}, max_position_embeddings{};
  std::optional<double> rms_norm_eps{}, rope_theta{}, partial_rotary_factor{};
  std::optional<bool> tie_word_embeddings{}, attention_bias{}, mlp_bias{};
  std::optional<bool> use_sliding_window{};
  // Classes that have a window by default take an absent key and a null
  // differently.
  bool sliding_window_written = false;
  std::optional<std::size_t> sliding_window{}, max_window_layers{};
  std::vector<std::string> layer_types{};
  std::optional<RopeScalingConfig> rope_scaling{};
  std::vector<std::size_t> bos_token_ids{}, eos_token_ids{};  // one or a list
};

// `origin` stands in front of messages. Throws Error(kCorruptFile) if the text
// is not a JSON object, kInvalidInput naming the key for a value of the wrong
// type, a size that is negative or above 2^31, or a number that is not finite;
// kUnsupported for rope parameters that differ by layer type.
ModelConfig parse_model_config(const std::string& json_text,
                               const std::string& origin);

}  // namespace llmpress
