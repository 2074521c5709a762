// A changed weight stored again in the form that it had: the same type, bits,
// groups, scales' type and outlier columns, on grids fitted anew. Nothing is
// calibrated; the recipe's stage that would round a weight in the same way with
// calibration comes with it.
#pragma once

#include <optional>
#include <string>

#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

// Whether a Linear of the blocks, the embedding or the head is stored packed.
bool is_packed(const Checkpoint& checkpoint, const Architecture& arch);

// W [out, in] rounded to the nearest in the form of `stored`. Columns that were
// grouped by importance (g_idx) are grouped in their order again. Throws
// Error(kUnsupported, "Linear '<name>': ...") for a sparse weight, whose zeros
// the change would fill.
PackedWeight round_like(const PackedWeight& stored, ConstMatrixView W,
                        const std::string& name, ThreadPool& pool);

// How a quantize stage would store a weight like this one: GPTQ for integers in
// groups, rounding to nearest for the rest, LLM.int8() with its outliers.
// Absent for dense weights. Throws as above.
std::optional<QuantizeConfig> config_like(const LinearWeights& stored,
                                          const std::string& name);

}  // namespace llmpress
