// Sparse differences of weights, as diff pruning learns them
// (arXiv:2012.07463), which PEFT has no files for: adapter_config.json with
//   "peft_type": "SPARSE_DIFFERENCE"
// and, for each Linear W [out, in] that changes in n places,
//   base_model.model.<path>.difference.shape   I64 [2]: out, in
//   base_model.model.<path>.difference.indices U32 [n]: o * in + i, ascending
//   base_model.model.<path>.difference.values  F32 [n]: added to W
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "formats/adapters/peft_adapter.h"

namespace llmpress {

// Throws Error(kInvalidInput) naming the tensor for one that is missing or not
// known, indices that do not ascend or leave the shape, a value that is not
// finite.
PeftAdapter read_difference_adapter(const std::filesystem::path& directory);

void write_difference_adapter(const std::filesystem::path& directory,
                              const std::map<std::string, PeftModule>& modules,
                              const std::string& base_model,
                              const std::map<std::string, std::string>& files);

}  // namespace llmpress
