// What an artifact's Linears are to be compared with: not the base's weights as
// they are stored, where stages changed them without changing what the model
// computes.
//
// Rotations, injected outliers and merged adapters are carried out again on the
// base, as the recipe in the artifact says. Scales that smoothing moved are
// found from the artifact: a norm's gain g became g / s and the columns of its
// consumers W s; likewise the rows of a Linear and the columns of the next.
// Scales count as moved only where that brings the weights closer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/model/block_weights.h"
#include "compress/pipeline/run/model_transforms.h"
#include "formats/checkpoints/checkpoint.h"
#include "recipes/recipe.h"

namespace llmpress {

class ArtifactBase {
 public:
  // All of them must outlive this.
  ArtifactBase(const Checkpoint& artifact, const Checkpoint& base,
               ThreadPool& pool);

  // nullptr if the recipe took parts of the model away: then nothing of the
  // base stands beside a Linear of the artifact.
  const Checkpoint* checkpoint() const { return top_; }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  const Checkpoint* top_;
  Recipe recipe_;  // the plan points into it
  std::unique_ptr<StagePlan> plan_;
  std::unique_ptr<TransformedModel> transformed_;
  std::vector<std::string> notes_;
};

// The weights that one block's Linears had before they were rounded.
struct UnroundedBlock {
  std::vector<MatrixF> linears{};    // [out, in] each
  std::vector<std::string> moved{};  // sources of scales: "input_layernorm"
};

UnroundedBlock unrounded_block(const BlockWeights& base,
                               const BlockWeights& artifact,
                               const BlockSpec& spec);

}  // namespace llmpress
