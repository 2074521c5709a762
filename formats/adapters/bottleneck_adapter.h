// Bottlenecks behind Linears (arXiv:1902.00751), which PEFT has no files for:
// adapter_config.json with
//   "peft_type": "BOTTLENECK", "bottleneck_size": m,
//   "non_linearity": "relu", "gelu" (by erf) or "silu"
// and, for each Linear [out, in] in float32 (the last part of each name is that
// of the `adapters` library),
//   base_model.model.<path>.adapter_down.weight [m, out]  .bias [m]
//   base_model.model.<path>.adapter_up.weight [out, m]    .bias [out]
// which turn its output y into y + up(f(down(y))).
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>

#include "formats/adapters/peft_adapter.h"

namespace llmpress {

// Throws Error(kInvalidInput) naming the tensor for one that is missing, is not
// known or has a shape that is not the configuration's.
PeftAdapter read_bottleneck_adapter(const std::filesystem::path& directory);

// Every module has a bottleneck, all of the same size and activation.
void write_bottleneck_adapter(const std::filesystem::path& directory,
                              const std::map<std::string, PeftModule>& modules,
                              const std::string& base_model,
                              const std::map<std::string, std::string>& files);

}  // namespace llmpress
