// An experiment: gives a small model the outlier features of a large one
// without changing its function. For both norms of every block the gain's
// channels of the largest magnitude are multiplied by `factor`, and the
// matching columns of the Linears that read the norm divided by it.
#pragma once

#include "compress/model/architecture.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "recipes/recipe.h"

namespace llmpress {

// Edits of `checkpoint`. Throws Error(kInvalidArgument) if there are fewer
// channels than asked for.
CheckpointEdits inject_outliers(const Checkpoint& checkpoint,
                                const Architecture& arch,
                                const InjectOutliersStage& stage);

}  // namespace llmpress
