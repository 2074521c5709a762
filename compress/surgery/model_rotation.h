// QuaRot (arXiv:2404.00456) on a whole model: a randomized Hadamard rotation of
// the residual stream fused into every weight that reads or writes it, one of
// each value head fused into v and o, and, `online`, a Hadamard transform of
// the MLP's inner vector before the down projection. The function of the model
// stays the same; outliers are spread over all channels.
//
// Norm gains are folded into the Linears after them first, so a tied head
// becomes a tensor of its own (tie_word_embeddings false).
#pragma once

#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "recipes/recipe.h"

namespace llmpress {

struct RotationPlan {
  CheckpointEdits edits{};
  std::vector<std::string> notes{};  // block-diagonal fallbacks and the like
};

// Throws Error(kUnsupported) with the stage's place for models whose blocks it
// cannot rotate (LayerNorm, biased norms).
RotationPlan rotate_model(const Checkpoint& checkpoint,
                          const Architecture& arch, const RotateStage& stage,
                          ThreadPool& pool);

}  // namespace llmpress
