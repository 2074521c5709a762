// config.json of a model from which blocks were taken out. What it says of each
// layer goes along with the layer:
//
//   layer_types, no_rope_layers, ...       entries of those that went are left out
//   hybrid_override_pattern                likewise, a letter a layer
//   block_types                            a cycle: written out, then likewise
//   mlp_only_layers, moe_layers, ...       numbers of layers: numbered anew
//   per_layer_config                       an object by number: likewise
//   first_k_dense_replace, max_window_layers    of the first k layers: counted
//   decoder_sparse_step, interleave_moe_layer_step
//                                          every nth: written out as a list
//
// What follows from a layer's place otherwise (Jamba's periods, GPT-2's scores
// divided by the layer's number) cannot be said of what is left.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "compress/model/architecture.h"

namespace llmpress {

// `config_json`: the decoder's object, of `arch`; `kept` ascending. Throws
// Error(kUnsupported) for blocks that read a table of all blocks (Gemma 4).
std::string config_of_layers(const std::string& config_json,
                             const Architecture& arch,
                             std::span<const std::size_t> kept);

// Throws Error(kUnsupported) if `after`, from config_of_layers(), has not the
// blocks `kept` of `before`.
void check_kept_layers(const Architecture& before, const Architecture& after,
                       std::span<const std::size_t> kept);

}  // namespace llmpress
