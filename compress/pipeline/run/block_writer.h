// A compressed block on its way into an artifact: every Linear and norm under
// its full name, and Linears that share a tensor of the source (stacked
// experts, transposed weights) back in it while they are plain numbers.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "compress/model/architecture.h"
#include "compress/pipeline/run/block_compressor.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// Where the tensors of a block lie in the source: its name there.
struct BlockSource {
  // Where the block was written before, each of its Linears by its own name:
  // they come from there, one by one, and the block's own are empty.
  StoredLinears written{};
  const Checkpoint* checkpoint = nullptr;  // null: everything by itself
  std::string block{};                     // "model.layers.3"
  // Experts stand by themselves also where all of a stack are plain numbers.
  bool experts_apart = false;
  // Stacks of which all are MXFP4 go back in their place as gpt-oss has them
  // (compress/model/mxfp4_stack.h).
  bool mxfp4_stacks = false;
};

// `layer` numbers the block in the artifact, whose shapes `arch` has. Where
// some Linear of a shared tensor is packed, all of them stand by themselves,
// `<name>.weight_packed` or `<name>.weight`.
void add_block(ArtifactWriter& writer, const CompressedBlock& block,
               std::size_t layer, const Architecture& arch,
               const BlockSource& source = {});

}  // namespace llmpress
