#include "compress/calibration/stage_order.h"

#include <string>

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
}

}  // namespace llmpress
