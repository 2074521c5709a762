// Whether an output's format can hold what its stages make, and who will load
// it: found before work, from the form that each Linear will have.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/run/stage_check.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct OutputCheck {
  // By full name: Linears treated otherwise than their stage says, as
  // `output.incompatible` asks; absent: not quantized.
  std::map<std::string, std::optional<QuantizeStage>> changed{};
  std::vector<std::string> warnings{};  // for console and report
};

// `arch`: after structured pruning. Throws Error(kInvalidArgument) with the
// stage's place for what the format cannot hold, and, if the recipe says
// 'refuse', for what no loader of it takes.
OutputCheck check_output(const OutputConfig& output, const StagePlan& plan,
                         const Checkpoint& checkpoint, const Architecture& arch,
                         ThreadPool& pool);
// The same of modules alone, without what engines ask of an architecture.
OutputCheck check_output(const OutputConfig& output, const StagePlan& plan,
                         const Checkpoint& checkpoint,
                         std::span<const Module> modules, ThreadPool& pool);

}  // namespace llmpress
