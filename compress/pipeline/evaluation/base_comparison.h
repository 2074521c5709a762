// Errors of an artifact's Linears against a base, block by block.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>

#include "compress/core/parallel.h"
#include "compress/pipeline/evaluation/verification.h"
#include "compress/pipeline/run/artifact_base.h"

namespace llmpress {

class BaseComparison {
 public:
  // `base` may be null: then nothing is compared. All must outlive this.
  BaseComparison(const Checkpoint& artifact, const Checkpoint* base,
                 const Architecture& arch, ThreadPool& pool,
                 Verification& result);

  // Of the block whose Linears are the last of the result's.
  void add(std::size_t layer, const BlockWeights& block);
  void finish();  // notes of what was moved

 private:
  bool same_shapes(std::size_t layer, const BlockWeights& block);
  void compare(const MatrixF& found, const MatrixF& wanted,
               VerifiedLinear& linear);
  void note(const std::string& text);

  const Checkpoint* base_ = nullptr;
  const Architecture& arch_;
  Verification& result_;
  std::optional<ArtifactBase> origin_{};
  std::map<std::string, std::size_t> moved_{};  // source -> blocks
};

}  // namespace llmpress
