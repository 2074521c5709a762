// What structured pruning does to a model's shape, known before any work: how
// many units of each kind stay, and config.json after it. Every block loses the
// same number, so the result is an ordinary smaller model.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "compress/calibration/stage_plan.h"
#include "compress/model/architecture.h"
#include "recipes/recipe.h"

namespace llmpress {

struct UnitCount {
  std::size_t kept = 0, of = 0;
};

// FFN channels, key/value heads, channels of the residual stream, blocks or
// experts of a mixture, whichever `config` removes. Throws
// Error(kInvalidArgument) for key/value heads that do not divide those that are
// there, Error(kUnsupported) for experts of a model without.
UnitCount unit_count(const Architecture& arch, const PruneConfig& config);
std::string_view unit_name(PruneMethod method);  // "channels"

// Throws Error(kUnsupported) with the stage's place for what would not give a
// working model: calibrated grouping of keys that are normed after their
// projection; importance that this version cannot measure; fewer experts than
// a token goes to.
void check_structured(const Architecture& arch, const PruneStage& stage);

// config.json of the model that the stage leaves. head_dim is written out where
// it no longer follows from the other sizes. `kept_layers` ascends; empty: any,
// as long as their number is right (kDepth).
std::string pruned_config(const std::string& config_json,
                          const Architecture& arch, const PruneConfig& config,
                          std::span<const std::size_t> kept_layers = {});

// config.json of what a training stage trains.
std::string student_config(const std::string& config_json,
                           const Architecture& arch,
                           const StudentConfig& student);

// The architecture after all structured stages of `plan`, which are checked.
Architecture planned_architecture(const StagePlan& plan,
                                  const std::string& config_json,
                                  const std::string& origin);

}  // namespace llmpress
