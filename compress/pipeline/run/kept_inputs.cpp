#include "compress/pipeline/run/kept_inputs.h"

#include "compress/model/live_widths.h"

namespace llmpress {

bool KeptInputs::remakes(const BlockSpec& block, std::size_t stage,
                         const Architecture& arch) const {
  const StageSpec& spec = block.stages[stage];
  if (stage == 0 || (spec.in <= arch.hidden && spec.groups == 1)) return false;
  if (tokens_ == 0) return true;
  const std::size_t of_token =
      live_widths(block).at_stage[stage] * sizeof(float);
  return of_token > kKeptInputBytes / tokens_;
}

}  // namespace llmpress
