// LoRA adapters merged into a model as its tensors are read: one Linear at a
// time in float32, one rounding at the end, shards of any size in bounded
// memory.
//
// A model that ties its head to the embedding is untied where an adapter
// changes one of both: beside such a base the adapter changes that one alone,
// and so does the merged model, at the price of a head of its own.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/adapters/adapter_set.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "lora/combine.h"

namespace llmpress {

struct AdapterMerge {
  CheckpointEdits edits{};
  std::vector<std::string> merged{};  // module paths that the adapters change
  std::vector<std::string> notes{};
};

// Several adapters are combined as `config` says; cat: the sum of their changes
// of the base; svd_rank 0 is the largest rank among them. `pool` must outlive
// the edits. Throws Error(kInvalidInput) if an adapter names a module that the
// model does not have, or whose shape differs; kUnsupported for what cannot be
// merged.
AdapterMerge merge_adapters(const Checkpoint& checkpoint,
                            const Architecture& arch,
                            const std::vector<WeightedAdapter>& adapters,
                            const CombineConfig& config, ThreadPool& pool);

// The replacements of `set` alone: what lies under factors that are kept beside
// the model.
AdapterMerge replace_modules(const Checkpoint& checkpoint,
                             const Architecture& arch, const AdapterSet& set,
                             ThreadPool& pool);

// Edits that take out again what merging `adapters` put in, up to the rounding
// of the merged weights. Throws Error(kUnsupported) naming the adapter and the
// module for DoRA and for replaced tensors, whose originals are in neither.
AdapterMerge unmerge_adapters(const Checkpoint& checkpoint,
                              const Architecture& arch,
                              const std::vector<WeightedAdapter>& adapters,
                              ThreadPool& pool);

}  // namespace llmpress
