// Virtual tokens of an adapter (virtual_tokens.h) as keys and values before
// every sequence of a model. Those of a prompt are what the model makes of its
// rows: nothing in them depends on the text behind them.
#pragma once

#include <filesystem>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "compress/model/kv_prefix.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// By layer. Throws Error as read_virtual_tokens(), kInvalidInput with the
// adapter's path where its sizes are not the model's, kUnsupported for a model
// that can have no tokens before a text.
std::vector<BlockPrefix> tokens_beside(const Checkpoint& base,
                                       const Architecture& arch,
                                       const std::filesystem::path& adapter,
                                       Isa isa, ThreadPool& pool);

}  // namespace llmpress
