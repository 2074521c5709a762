// What a trained model learned, laid over the checkpoint that it began with.
#pragma once

#include <span>

#include "compress/model/architecture.h"
#include "compress/model/training/parameter.h"
#include "compress/surgery/checkpoint_overlay.h"

namespace llmpress {

// The parameters' values in place of the tensors that they came from, wherever
// these lie. `arch` and the values must outlive the overlay.
CheckpointEdits learned_weights(const Architecture& arch,
                                std::span<const Parameter> parameters);

}  // namespace llmpress
