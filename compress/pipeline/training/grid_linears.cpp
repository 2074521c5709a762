#include "compress/pipeline/training/grid_linears.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/packed/scale_layout.h"
#include "compress/pipeline/training/grid_linear.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse(const QuantizeStage& stage, const std::string& why) {
  fail(ErrorCode::kUnsupported, "{}: {}", stage.position.to_string(), why);
}

// Every Linear of the blocks that is quantized.
std::map<std::string, LinearTreatment> quantized_linears(
    const StagePlan& plan, const Architecture& arch) {
  std::map<std::string, LinearTreatment> found;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      const LinearTreatment treatment = treatment_of(plan, arch, layer, l);
      if (treatment.quantize == nullptr) continue;
      found[arch.linear_name(layer, l)] = treatment;
    }
  }
  return found;
}

// Why the scales that a stage's rounding makes are fixed, or empty. A row of
// weights tells.
std::string_view fixed_scales_of(const QuantizeStage& stage,
                                 const Architecture& arch, ThreadPool& pool) {
  const MatrixF row(1, arch.hidden);
  return fixed_scales(round_to_nearest(row.view(), stage.config, pool));
}

void check_aware_stage(const QuantizeStage& stage, const StagePlan& plan,
                       const QuantizationAware& aware, const Architecture& arch,
                       ThreadPool& pool) {
  for (const auto& [name, role] :
       {std::pair(arch.embedding, ModuleRole::kEmbedding),
        std::pair(arch.head, ModuleRole::kHead)}) {
    if (plan.treatment(name, role).written != &stage) continue;
    refuse(stage, formatted("'{}' does not learn on a grid: leave it out of a "
                            "stage that 'quantization_aware' training learns "
                            "for",
                            name));
  }
  if (stage.config.input.range == ActivationQuant::Range::kStatic &&
      stage.config.input.kind != ActivationQuant::Kind::kNone) {
    refuse(stage,
           "'quantization_aware' training rounds inputs as they come: 'range' "
           "must not be static");
  }
  const std::string_view fixed = fixed_scales_of(stage, arch, pool);
  if (fixed.empty() || !aware.learn_scales) return;
  refuse(stage, formatted("scales of such weights do not learn: {}; write "
                          "learn_scales: false",
                          fixed));
}

bool wants_scales(const TrainStage& train) {
  return train.learn.empty() ||
         std::ranges::count(train.learn, LearningPart::kScales) != 0;
}

}  // namespace

LinearMaker grid_linears(const QuantizationAware& aware, const StagePlan& plan,
                         const Architecture& arch, ThreadPool& pool) {
  return [aware, chosen = quantized_linears(plan, arch), &pool](
             const std::string& name,
             LinearWeights& weights) -> std::unique_ptr<TrainableLinear> {
    const auto found = chosen.find(name);
    if (found == chosen.end()) return nullptr;
    if (weights.input_hadamard != 0) {
      fail(ErrorCode::kUnsupported,
           "its input is rotated at run time, which cannot run in reverse");
    }
    return std::make_unique<GridLinear>(
        dequantize(weights.weight), std::move(weights.bias),
        GridLinearConfig{.quantize = found->second.quantize->config,
                         .steps = aware.learn_scales ? GridSteps::kLearn
                                                     : GridSteps::kFitted,
                         .rounds_input = aware.activations},
        nullptr, pool);
  };
}

void check_aware_training(const StagePlan& plan, const Architecture& arch,
                          ThreadPool& pool) {
  if (plan.aware() == nullptr) return;
  const QuantizationAware& aware = *training_of(*plan.aware())->aware;
  for (const QuantizeStage* stage : plan.quantizing()) {
    check_aware_stage(*stage, plan, aware, arch, pool);
  }
}

void check_recovery(const StagePlan& plan, const Architecture& arch,
                    ThreadPool& pool) {
  for (const Stage* recovery : plan.recovery()) {
    if (!wants_scales(*training_of(*recovery))) continue;
    for (const QuantizeStage* stage : plan.quantizing()) {
      if (stage->target_bits || stage->target_bytes) continue;
      const std::string_view fixed = fixed_scales_of(*stage, arch, pool);
      if (fixed.empty()) continue;
      refuse(*stage,
             formatted("'{}' ({}) cannot train the scales of such weights: {}; "
                       "write learn: [norms, biases], or another type",
                       stage_name(*recovery),
                       position_of(*recovery).to_string(), fixed));
    }
  }
}

}  // namespace llmpress
