#include "compress/calibration/stage_order.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "compress/core/formatted.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse(const SourcePosition& position,
                         const std::string& why) {
  fail(ErrorCode::kInvalidArgument, "{}: {}", position.to_string(), why);
}

// When a stage acts, in a plan's own order.
enum class Act { kTransform, kSmooth, kPrune, kQuantize, kKvCache };

Act act_of(const Stage& stage) {
  if (std::holds_alternative<SmoothStage>(stage)) return Act::kSmooth;
  if (std::holds_alternative<QuantizeStage>(stage)) return Act::kQuantize;
  if (std::holds_alternative<QuantizeKvCacheStage>(stage)) {
    return Act::kKvCache;
  }
  const auto* prune = std::get_if<PruneStage>(&stage);
  return prune != nullptr && removes_single_weights(prune->config.method)
             ? Act::kPrune
             : Act::kTransform;
}

// What trains the packed model that stages before it made.
bool recovers(const Stage& stage) {
  return std::holds_alternative<TrainStage>(stage) ||
         std::holds_alternative<DistillStage>(stage);
}

bool is_packing(const Stage& stage) {
  const Act act = act_of(stage);
  return act == Act::kQuantize || act == Act::kKvCache;
}

bool moves_scales(const Stage& stage) {
  const auto* quantize = std::get_if<QuantizeStage>(&stage);
  return std::holds_alternative<SmoothStage>(stage) ||
         (quantize != nullptr && method_of(quantize->config).moves_scales());
}

// Why `later` cannot follow `earlier`, or nullptr.
const char* conflict(const Stage& earlier, const Stage& later) {
  const bool merges = std::holds_alternative<MergeLoraStage>(later);
  const auto* rotate = std::get_if<RotateStage>(&earlier);
  if (merges && (rotate != nullptr ||
                 std::holds_alternative<InjectOutliersStage>(earlier))) {
    return "the adapter was trained on the model's own residual stream, which "
           "that stage changes; merge first";
  }
  if (merges && act_of(earlier) == Act::kTransform &&
      std::holds_alternative<PruneStage>(earlier)) {
    return "the adapter was trained on the whole model, from which that stage "
           "takes parts away; merge first";
  }
  if (rotate != nullptr && std::holds_alternative<RotateStage>(later)) {
    return "a model is rotated once";
  }
  if (rotate != nullptr && rotate->online &&
      std::holds_alternative<PruneStage>(later) &&
      act_of(later) == Act::kTransform) {
    return "no part of an input that is rotated at inference can go; prune "
           "first";
  }
  if (act_of(earlier) == Act::kKvCache && act_of(later) == Act::kKvCache) {
    return "keys and values have one pair of scales";
  }
  if (recovers(later) && is_packing(earlier)) return nullptr;
  if (act_of(later) < act_of(earlier)) {
    return "it acts before that stage, whatever their order here; write it "
           "first";
  }
  if (std::holds_alternative<SmoothStage>(earlier) && moves_scales(later)) {
    return "scales are moved once: by one 'smooth' stage or by the method of "
           "'quantize'";
  }
  return nullptr;
}

bool is_aware(const Stage& stage) {
  const TrainStage* const train = training_of(stage);
  return train != nullptr && train->aware.has_value();
}

// A stage that trains on the grids to come is followed by those that set them,
// which round to nearest, and by nothing else that changes weights.
void check_aware(std::span<const Stage* const> stages) {
  const auto aware = std::ranges::find_if(
      stages, [](const Stage* stage) { return is_aware(*stage); });
  if (aware == stages.end()) return;
  bool packed = false;
  for (auto at = stages.begin(); at != stages.end(); ++at) {
    const Stage& stage = **at;
    const auto* const quantize = std::get_if<QuantizeStage>(&stage);
    packed = packed || quantize != nullptr;
    const std::string_view why =
        at > aware && act_of(stage) == Act::kTransform && !packed
            ? "it changes weights that were trained for their grid; write it "
              "first"
        : act_of(stage) == Act::kSmooth || act_of(stage) == Act::kPrune
            ? "it changes weights behind that training"
        : quantize != nullptr && quantize->config.method != kDefaultMethod
            ? "the grid is learned there and stored as it is: leave 'method' "
              "out"
        : is_aware(stage) && packed ? "codes no longer learn behind 'quantize'"
                                    : "";
    if (why.empty()) continue;
    refuse(position_of(stage),
           formatted("'{}' with 'quantization_aware' ({}): {}",
                     stage_name(stage), position_of(**aware).to_string(), why));
  }
  if (packed) return;
  refuse(
      position_of(**aware),
      "'quantization_aware' without a 'quantize' stage behind it, whose grid "
      "it would learn on");
}

// What follows a stage that trains packed weights trains them too.
void check_recovery(std::span<const Stage* const> stages) {
  const Stage* packing = nullptr;
  const Stage* recovery = nullptr;
  for (const Stage* stage : stages) {
    if (recovery != nullptr && !recovers(*stage)) {
      refuse(
          position_of(*stage),
          formatted("'{}' after '{}' ({}): that stage trains what is packed; "
                    "write what packs it first",
                    stage_name(*stage), stage_name(*recovery),
                    position_of(*recovery).to_string()));
    }
    if (is_packing(*stage)) packing = stage;
    if (packing == nullptr || !recovers(*stage)) continue;
    recovery = stage;
    if (training_of(*stage)->student == StudentConfig{}) continue;
    refuse(
        position_of(*stage),
        formatted("'student' of '{}' after '{}' ({}): what is trained is the "
                  "model that it packed",
                  stage_name(*stage), stage_name(*packing),
                  position_of(*packing).to_string()));
  }
}

}  // namespace

void check_order(std::span<const Stage* const> stages) {
  for (std::size_t l = 0; l < stages.size(); ++l) {
    for (std::size_t e = 0; e < l; ++e) {
      const char* const why = conflict(*stages[e], *stages[l]);
      if (why == nullptr) continue;
      refuse(position_of(*stages[l]),
             formatted("'{}' after '{}' ({}): {}", stage_name(*stages[l]),
                       stage_name(*stages[e]),
                       position_of(*stages[e]).to_string(), why));
    }
  }
  check_aware(stages);
  check_recovery(stages);
}

}  // namespace llmpress
