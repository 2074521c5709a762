// What most families' config.json have in common.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/model/architecture.h"
#include "formats/config_reader.h"

namespace llmpress {

// The value of a size that must be there and above 0.
std::size_t require_size(const ConfigReader& config, std::string_view key,
                         std::optional<std::size_t> fallback = {});
double require_positive(const ConfigReader& config, std::string_view key,
                        std::optional<double> fallback = {});
float read_epsilon(const ConfigReader& config, std::string_view key,
                   double fallback);
Activation read_activation(const ConfigReader& config, std::string_view key,
                           std::string_view fallback);
// A key that this program knows with one value only.
void require_flag(const ConfigReader& config, std::string_view key,
                  bool wanted);

// The names of the usual sizes, and what the family's class takes where they
// are absent.
struct SizeKeys {
  std::string_view hidden = "hidden_size", ffn = "intermediate_size",
                   layers = "num_hidden_layers", heads = "num_attention_heads",
                   max_positions = "max_position_embeddings";
  std::size_t default_ffn = 0;  // 0: required
  std::size_t default_max_positions = 2048;
  std::size_t default_head_dim = 0;  // 0: hidden / heads
  std::size_t default_kv_heads = 0;  // 0: heads
};
// hidden, ffn, layers, heads, kv_heads, head_dim, vocabulary, max_positions.
void read_sizes(const ConfigReader& config, const SizeKeys& keys,
                Architecture& arch);
std::size_t read_layers(const ConfigReader& config, std::string_view key);

// One kind of rotary embedding from `rope_parameters` (transformers 5; with a
// `layer_type`, from the object of that name in it where there is one) or from
// `rope_theta`, `partial_rotary_factor` and `rope_scaling`. `dim` is the head's
// width before a partial factor.
struct RopeDefaults {
  double theta = 10000;
  double partial = 1;
};
RopeConfig read_rope(const ConfigReader& config, const Architecture& arch,
                     std::size_t dim, const RopeDefaults& defaults = {},
                     std::string_view layer_type = "");

// `layer_types` [layers], or what the family's class makes where it is absent.
// Throws for a type that is not in `known`.
std::vector<std::string> read_layer_types(
    const ConfigReader& config, std::size_t layers,
    const std::vector<std::string>& known,
    const std::vector<std::string>& fallback);

// Programs, each for the layers that `kind_of_layer` says.
void set_blocks(Architecture& arch, std::vector<BlockSpec> kinds,
                std::vector<std::size_t> kind_of_layer);
void set_blocks(Architecture& arch, BlockSpec block);  // all layers alike

// Reads tie_word_embeddings.
void read_tied_head(const ConfigReader& config, bool fallback,
                    Architecture& arch);

// YaRN's attention factor 0.1 mscale ln(factor) + 1 (arXiv:2309.00071, Eq. 22).
double yarn_attention(double factor, double mscale);

}  // namespace llmpress
