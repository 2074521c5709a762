// What a plan asks of calibration.
#pragma once

#include "compress/calibration/stage_plan.h"
#include "compress/core/input_stats.h"
#include "compress/model/architecture.h"

namespace llmpress {

// What calibration must collect for some Linear of the model.
StatsNeeds needs_of_plan(const StagePlan& plan, const Architecture& arch);

// Whether the calibration tokens run through the uncompressed model too.
bool wants_reference(const StagePlan& plan, const Architecture& arch);

// What a variant makes of calibration: nothing; figures for the report, if
// there is some (outliers of LLM.int8()); or it cannot do without.
enum class CalibrationUse { kNone, kReport, kNeeded };
CalibrationUse calibration_use(const StagePlan& plan, const Architecture& arch);
// The same without the stages that ran before, on the whole model.
CalibrationUse calibration_use_of_blocks(const StagePlan& plan,
                                         const Architecture& arch);

}  // namespace llmpress
