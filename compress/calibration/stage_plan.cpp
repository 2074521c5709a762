#include "compress/calibration/stage_plan.h"

#include <algorithm>

#include "compress/calibration/stage_order.h"
#include "compress/core/formatted.h"

namespace llmpress {

StagePlan::StagePlan(std::span<const Stage> shared,
                     std::span<const Stage> own) {
  std::vector<const Stage*> all;
  for (const Stage& stage : shared) all.push_back(&stage);
  for (const Stage& stage : own) all.push_back(&stage);
  check_order(all);
  for (const std::span<const Stage> stages : {shared, own}) {
    for (const Stage& stage : stages) {
      if (const auto* smooth = std::get_if<SmoothStage>(&stage)) {
        smoothing_.push_back(smooth);
      } else if (const auto* prune = std::get_if<PruneStage>(&stage)) {
        if (removes_single_weights(prune->config.method)) {
          pruning_.push_back(prune);
          pruned_.emplace_back(prune->layers, prune->position.to_string());
        } else {
          transforms_.push_back(&stage);  // a model of another shape
        }
      } else if (const auto* quantize = std::get_if<QuantizeStage>(&stage)) {
        quantizing_.push_back(quantize);
        quantized_.emplace_back(quantize->layers,
                                quantize->position.to_string());
      } else if (const auto* kv = std::get_if<QuantizeKvCacheStage>(&stage)) {
        kv_cache_ = kv;
      } else if (quantizing_.empty() && kv_cache_ == nullptr) {
        transforms_.push_back(&stage);
        const TrainStage* const train = training_of(stage);
        if (train != nullptr && train->aware) aware_ = &stage;
      } else {
        recovery_.push_back(&stage);
      }
    }
  }
}

std::vector<const Stage*> StagePlan::training() const {
  std::vector<const Stage*> training;
  for (const auto& stages : {transforms_, recovery_}) {
    for (const Stage* stage : stages) {
      if (training_of(*stage) != nullptr) training.push_back(stage);
    }
  }
  return training;
}

LinearTreatment StagePlan::treatment(std::string_view linear_name,
                                     ModuleRole role) const {
  LinearTreatment treatment;
  const auto first_of = [&](const auto& stages,
                            const std::vector<LayerSelector>& layers) {
    std::size_t i = 0;
    while (i < stages.size() && !layers[i].selects(linear_name, role)) ++i;
    return i < stages.size() ? stages[i] : nullptr;
  };
  treatment.prune = first_of(pruning_, pruned_);
  treatment.quantize = treatment.written = first_of(quantizing_, quantized_);
  if (assigned_ != nullptr && treatment.quantize != nullptr) {
    const auto assigned = assigned_->find(std::string(linear_name));
    if (assigned != assigned_->end()) {
      treatment.quantize = assigned->second ? &*assigned->second : nullptr;
    }
  }
  treatment.learned = aware_ != nullptr && treatment.quantize != nullptr;
  return treatment;
}

void StagePlan::assign(
    std::map<std::string, std::optional<QuantizeStage>> stages) {
  if (assigned_ != nullptr) stages.insert(assigned_->begin(), assigned_->end());
  assigned_ = std::make_shared<
      const std::map<std::string, std::optional<QuantizeStage>>>(
      std::move(stages));
}

bool StagePlan::empty() const {
  return transforms_.empty() && smoothing_.empty() && pruning_.empty() &&
         quantizing_.empty() && kv_cache_ == nullptr;
}

LinearTreatment treatment_of(const StagePlan& plan, const Architecture& arch,
                             std::size_t layer, std::size_t linear) {
  const LinearSpec& spec = arch.block(layer).linears[linear];
  return plan.treatment(arch.linear_name(layer, linear),
                        spec.role == LinearRole::kRouter
                            ? ModuleRole::kRouter
                            : ModuleRole::kBlockLinear);
}

}  // namespace llmpress
