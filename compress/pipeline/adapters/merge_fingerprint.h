// What a merged model is made from, for a merge that was cut off to go on.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/pipeline/adapters/adapter_set.h"
#include "lora/combine.h"

namespace llmpress {

// One hash over the weights of adapters, the names and contents of their files,
// and how they are combined.
std::string adapters_sha256(const std::vector<WeightedAdapter>& adapters,
                            const CombineConfig& combine);

// Lines of "name: value". The model by model_state() (model_files.h): to read it
// takes as long as to merge.
std::string merge_fingerprint(std::string_view command,
                              const std::filesystem::path& model,
                              const std::vector<WeightedAdapter>& adapters,
                              const CombineConfig& combine,
                              std::optional<DType> dtype);

}  // namespace llmpress
