// The stages of a variant that act on the whole model, as checkpoints laid over
// one another.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/stage_plan.h"
#include "formats/checkpoint.h"

namespace llmpress {

class TransformedModel {
 public:
  // `base` must outlive this.
  TransformedModel(const Checkpoint& base, const StagePlan& plan,
                   ThreadPool& pool);

  const Checkpoint& checkpoint() const { return *top_; }
  const Architecture& architecture() const { return *arch_; }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  const Checkpoint* top_;
  std::vector<std::unique_ptr<Checkpoint>> layers_;
  // Edits refer to the architecture that they were made for.
  std::vector<std::unique_ptr<Architecture>> archs_;
  const Architecture* arch_;
  std::vector<std::string> notes_;
};

}  // namespace llmpress
