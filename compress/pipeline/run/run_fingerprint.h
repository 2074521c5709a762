// What a result was made from: to go on with what an interrupted run left, and
// for whoever finds the artifact.
#pragma once

#include <string>

#include "compress/pipeline/run/variant_compressor.h"

namespace llmpress {

// Whose sums differ in their last bits: RunInputs::kernels.
std::string kernels_of(Isa isa);

// Of all that decides what a variant becomes, a line "name: value" each: what is
// left of an interrupted run counts if it carries the same.
std::string fingerprint_of(const RunInputs& inputs, const VariantJob& job,
                           ThreadPool& pool);

// What an artifact was made from, for whoever finds it: llmpress.json.
std::string provenance_of(const RunInputs& inputs, const std::string& variant);

}  // namespace llmpress
