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

using Grids = std::map<std::string, QuantizeConfig>;  // by module path

// An embedding has token ids for inputs, which are not rounded; the head that is
// tied to it is the same packed matrix, and takes its inputs as they are too.
void add_ends(const StagePlan& plan, const Architecture& arch, Grids& grids) {
  if (const QuantizeStage* const stage =
          plan.treatment(arch.embedding, ModuleRole::kEmbedding).quantize) {
    QuantizeConfig& config = grids[arch.embedding] = stage->config;
    config.input = {};
  }
  if (arch.tied_head) return;
  if (const QuantizeStage* const stage =
          plan.treatment(arch.head, ModuleRole::kHead).quantize) {
    grids[arch.head] = stage->config;
  }
}

// Of everything that is quantized.
Grids grids_of(const StagePlan& plan, const Architecture& arch) {
  Grids grids;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      const QuantizeStage* const stage =
          treatment_of(plan, arch, layer, l).quantize;
      if (stage == nullptr) continue;
      grids[arch.linear_name(layer, l)] = stage->config;
    }
  }
  add_ends(plan, arch, grids);
  return grids;
}

// A head that is tied to the embedding learns as one matrix with it.
void check_tied_head(const QuantizeStage& stage, const StagePlan& plan,
                     const Architecture& arch) {
  if (!arch.tied_head ||
      plan.treatment(arch.head, ModuleRole::kHead).written != &stage ||
      plan.treatment(arch.embedding, ModuleRole::kEmbedding).written ==
          &stage) {
    return;
  }
  refuse(stage,
         formatted("'{}' is tied to '{}' and learns as one matrix with it: let "
                   "this stage select both, or none of them",
                   arch.head, arch.embedding));
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
  check_tied_head(stage, plan, arch);
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
  return [aware, chosen = grids_of(plan, arch), &pool](
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
        GridLinearConfig{.quantize = found->second,
                         .steps = aware.learn_scales ? GridSteps::kLearn
                                                     : GridSteps::kFitted,
                         .rounds_input = aware.activations},
        nullptr, pool);
  };
}

std::size_t grid_end_weights(const StagePlan& plan, const Architecture& arch) {
  if (plan.aware() == nullptr) return 0;
  Grids grids;
  add_ends(plan, arch, grids);
  return grids.size() * arch.vocabulary * arch.input_width();
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
