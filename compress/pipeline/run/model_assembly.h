// A whole model on its way into an artifact: its blocks as they were compressed
// or learned, embedding and head, and whatever else stands around them as the
// source has it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "compress/core/progress.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/run/block_compressor.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct ModelParts {
  const Checkpoint* source = nullptr;
  const Architecture* arch = nullptr;
  std::function<CompressedBlock(std::size_t layer)> block{};
  // If there is one: as BlockSource::written.
  std::function<StoredLinears(std::size_t layer)> written{};
  // By module name: embedding, head. What is not here comes from the source, in
  // the form that it has there.
  std::map<std::string, LinearWeights> ends{};
  // Experts stand by themselves also where all of a stack are plain numbers.
  bool experts_apart = false;
  bool mxfp4_stacks = false;  // as BlockSource::mxfp4_stacks
  Progress progress{};
  std::string phase{};  // of `progress`
};

// Everything but the files beside the tensors. `parts.source` is read until the
// writer is finished.
void add_model(ArtifactWriter& writer, const ModelParts& parts);

// A block of a checkpoint as it is stored there, to be written again beside the
// source's other tensors (scales of keys and values are among them).
CompressedBlock stored_block(const Checkpoint& checkpoint,
                             const Architecture& arch, std::size_t layer);

}  // namespace llmpress
