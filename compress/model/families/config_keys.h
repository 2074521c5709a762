// What most families' config.json have in common.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/model/architecture.h"
#include "formats/checkpoints/config_reader.h"

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
// A cap c of c * tanh(x / c); 0 where it is written as null.
float read_softcap(const ConfigReader& config, std::string_view key,
                   double fallback);
// A key that this program knows with one value only.
void require_flag(const ConfigReader& config, std::string_view key,
                  bool wanted);

// The names of the usual sizes, and what the family's class takes where they
// are absent. A family that has no key of a kind leaves its name empty; the
// usual one is then passed over.
struct SizeKeys {
  std::string_view hidden = "hidden_size", ffn = "intermediate_size",
                   layers = "num_hidden_layers", heads = "num_attention_heads",
                   kv_heads = "num_key_value_heads", head_dim = "head_dim",
                   max_positions = "max_position_embeddings";
  std::size_t default_hidden = 0, default_layers = 0;  // 0: required
  std::size_t default_heads = 0, default_vocabulary = 0;
  std::size_t default_ffn = 0;
  std::size_t default_ffn_factor = 0;  // times hidden, if not 0
  std::size_t default_max_positions = 2048;
  std::size_t default_head_dim = 0;  // 0: hidden / heads
  std::size_t default_kv_heads = 0;  // 0: heads
};
// hidden, ffn, layers, heads, kv_heads, head_dim, vocabulary, max_positions.
void read_sizes(const ConfigReader& config, const SizeKeys& keys,
                Architecture& arch);
std::size_t read_layers(const ConfigReader& config, std::string_view key,
                        std::optional<std::size_t> fallback = {});

// One kind of rotary embedding from `rope_parameters` (transformers 5; with a
// `layer_type`, from the object of that name in it where there is one) or from
// `rope_theta`, `partial_rotary_factor` and `rope_scaling`. `dim` is the head's
// width before a partial factor.
struct RopeDefaults {
  double theta = 10000;
  double partial = 1;
  std::size_t original_positions = 0;  // longrope; 0: max_positions
};
RopeConfig read_rope(const ConfigReader& config, const Architecture& arch,
                     std::size_t dim, const RopeDefaults& defaults = {},
                     std::string_view layer_type = "");
// The same from the object that describes it, if there is one; keys beside the
// object are not looked at.
RopeConfig read_rope_object(const ConfigReader& config,
                            const std::optional<ConfigReader>& rope,
                            const Architecture& arch, std::size_t dim,
                            const RopeDefaults& defaults);
// The object in `rope_scaling` or `rope_parameters`.
std::optional<ConfigReader> find_rope(const ConfigReader& config,
                                      std::string_view layer_type = "");
// read_rope() for a family that turns whole heads.
RopeConfig read_whole_rope(const ConfigReader& config, const Architecture& arch,
                           double default_theta = 10000);
// For families whose class nests `rope_parameters` by layer type: the object
// `layer_type` of it, or (older) `rope_scaling` for full attention alone, theta
// from `theta_key` where the object has none.
RopeConfig read_rope_of_type(const ConfigReader& config,
                             const Architecture& arch,
                             std::string_view layer_type,
                             std::string_view theta_key, double default_theta);

// `layer_types` [layers], or what the family's class makes where it is absent.
// Throws for a type that is not in `known`.
std::vector<std::string> read_layer_types(
    const ConfigReader& config, std::size_t layers,
    const std::vector<std::string>& known,
    const std::vector<std::string>& fallback);

// "sliding_attention" for all layers but every `period`th, "full_attention" for
// those.
std::vector<std::string> alternating_layer_types(std::size_t layers,
                                                 std::size_t period);
// The window of each layer: `window` where its type is "sliding_attention".
std::vector<std::size_t> windows_of(const std::vector<std::string>& types,
                                    std::size_t window);
// `sliding_window`; 0 where it is written as null, or absent and the default 0.
std::size_t read_window(const ConfigReader& config, std::size_t default_window);

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
