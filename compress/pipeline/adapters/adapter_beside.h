// Adapters kept beside a model, packed or not: y = W x + scaling B (A x) in
// every Linear that they change (lora/lora_apply.h), the same for embedding and
// head. Whole tensors that they replace (modules_to_save) are laid over the
// checkpoint.
//
// Keys and values that an adapter puts before the text (prefix and prompt
// tuning) stand in front of every sequence; one such adapter at a time, with no
// weight of its own, a prompt alone.
//
// Several adapters add up, each with its weight, as merging does with method
// cat. DoRA takes its row norms from the weight that inference uses: over a
// packed base these are the norms of the dequantized rows.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/model/weight_companion.h"
#include "compress/pipeline/adapters/adapter_set.h"

namespace llmpress {

struct AdaptersBeside {
  // The model to load, `companion` with it; points into the base.
  std::unique_ptr<Checkpoint> checkpoint{};
  std::shared_ptr<const WeightCompanion> companion{};  // null: none needed
  std::size_t modules = 0;
  std::vector<std::string> notes{};
};

// `base` and `pool` must outlive the result. Throws as read_adapters() and
// tokens_beside() do, kUnsupported for adapters that do not go together.
AdaptersBeside keep_beside(const Checkpoint& base, const Architecture& arch,
                           const std::vector<WeightedAdapter>& adapters,
                           Isa isa, ThreadPool& pool);

}  // namespace llmpress
