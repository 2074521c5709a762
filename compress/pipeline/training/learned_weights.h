// What a trained model learned, laid over the checkpoint that it began with.
#pragma once

#include <map>
#include <span>
#include <string>

#include "compress/core/packed_weight.h"
#include "compress/model/architecture.h"
#include "compress/model/training/parameter.h"
#include "compress/surgery/checkpoint_overlay.h"

namespace llmpress {

using PackedByName = std::map<std::string, LinearWeights>;  // by module path

// The parameters' values in place of the tensors that they came from, wherever
// these lie, but for those of `packed` Linears. `arch` and the values must
// outlive the overlay.
CheckpointEdits learned_weights(const Architecture& arch,
                                std::span<const Parameter> parameters,
                                const PackedByName& packed = {});

}  // namespace llmpress
