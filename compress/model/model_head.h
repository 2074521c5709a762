// The matrix that makes logits out of the last states.
#pragma once

#include <string>

#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// Its own, or the embedding that it shares.
const std::string& head_name(const Architecture& arch);
// As it is stored, with its bias. Throws Error(kInvalidInput) if it is missing.
LinearWeights read_head(const Checkpoint& checkpoint, const Architecture& arch);
// Some of its rows (Checkpoint::read_linear_part()).
LinearPart read_head_part(const Checkpoint& checkpoint,
                          const Architecture& arch, const RowChoice& choice);

}  // namespace llmpress
