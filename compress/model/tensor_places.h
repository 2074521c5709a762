// What only the tensors of a checkpoint can tell of its architecture.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {

// parse_architecture() of the checkpoint's config.json, with the names that its
// tensors have: the first of the family's places that holds the embedding. As
// in transformers, a head that is stored beside the embedding with other values
// is not tied, whatever config.json says.
Architecture read_architecture(const Checkpoint& checkpoint);

// The names of `from` for a model of the same family in another shape.
void use_places_of(const Architecture& from, Architecture& to);

// Whether a tensor only describes others or is no weight (a packed weight's
// shape, rotary frequencies).
bool is_metadata_tensor(std::string_view name);

// The block that the tensor stands in, by its name.
std::optional<std::size_t> layer_of(const std::string& tensor,
                                    const Architecture& arch);

// Whether the tensor `rest` of a block is part of a Linear, wherever it lies.
bool holds_linear(const BlockSpec& block, const std::string& rest);

// Of a model whose tensors have the names of `arch`: what its class calls
// modules that these name otherwise, and what stands beside a wrapped decoder
// ("vision_tower"), under whatever name.
ModuleNames module_names(const Checkpoint& checkpoint,
                         const Architecture& arch);

// Tensors that nothing here reads.
struct UnreadTensors {
  std::vector<std::string> of_decoder{};  // in a block or beside its ends
  // "model.layers.61" -> 14: blocks that config.json does not count, and modules
  // beside the decoder ("vision_tower").
  std::map<std::string, std::size_t> of_modules{};
};

// By their names, of a checkpoint that model_problems() finds whole.
UnreadTensors unread_tensors(const Checkpoint& checkpoint,
                             const Architecture& arch);

// Whether add_block() writes what the source's tensor `rest` ("mlp.up.weight")
// of a block holds.
bool written_with_block(const BlockSpec& block, const std::string& rest);

}  // namespace llmpress
