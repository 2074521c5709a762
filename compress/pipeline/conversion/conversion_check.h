// Whether a converted model is the model that it was made from.
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// Opens what lies at `written`. Throws Error(kUnsupported) if it does not
// describe the same program as `arch`, Error(kCorruptFile) if one of the Linears
// `exact` (blocks' and ends') does not hold the same numbers.
void check_conversion(const Checkpoint& source, const Architecture& arch,
                      const std::filesystem::path& written,
                      const std::set<std::string>& exact, ThreadPool& pool);

}  // namespace llmpress
