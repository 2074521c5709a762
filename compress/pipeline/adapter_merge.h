// LoRA adapters merged into a model as its tensors are read: one Linear at a
// time in float32, one rounding at the end, shards of any size in bounded
// memory.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/checkpoint_overlay.h"
#include "lora/combine.h"

namespace llmpress {

struct WeightedAdapter {
  std::filesystem::path path{};
  double weight = 1;
};

struct AdapterMerge {
  CheckpointEdits edits{};
  std::vector<std::string> merged{};  // module paths that the adapters change
};

// Several adapters are combined as `config` says; linear: one after another.
// Throws Error(kInvalidInput) if an adapter names a module that the model does
// not have, or whose shape differs; kUnsupported for what cannot be merged.
AdapterMerge merge_adapters(const Checkpoint& checkpoint,
                            const Architecture& arch,
                            const std::vector<WeightedAdapter>& adapters,
                            const CombineConfig& config, ThreadPool& pool);

}  // namespace llmpress
