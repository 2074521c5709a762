// What stands outside the blocks of a structurally pruned model: embedding,
// final norm, head and whatever else the checkpoint holds.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct ReducedEndsJob {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;     // of the checkpoint
  std::span<const std::size_t> layers{};  // that stay, ascending
  // Channels of the residual stream that stay; empty: all.
  std::span<const std::size_t> channels{};
  double final_gain_scale = 1;    // of the final norm, with `channels`
  std::optional<MatrixF> head{};  // [vocabulary, channels], if it was refitted
  // Tensors of the checkpoint that are written elsewhere, changed.
  std::span<const std::string> changed{};
};

// Copies what does not belong to the Linears and norms of the blocks. Other
// tensors of a block that stays move to its new number.
void write_ends(const ReducedEndsJob& job, ArtifactWriter& writer);

}  // namespace llmpress
