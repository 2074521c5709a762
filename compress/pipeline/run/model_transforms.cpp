#include "compress/pipeline/run/model_transforms.h"

#include "compress/core/formatted.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "compress/pipeline/run/structured_pruning.h"
#include "compress/pipeline/training/trained_model.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "compress/surgery/model_rotation.h"
#include "compress/surgery/outlier_injection.h"
#include "compress/surgery/structured_shape.h"

namespace llmpress {

TransformedModel::TransformedModel(const Checkpoint& base,
                                   const StagePlan& plan, ThreadPool& pool,
                                   const TransformContext& context)
    : base_(&base), top_(&base) {
  const auto parse = [this] {
    archs_.push_back(std::make_unique<Architecture>(read_architecture(*top_)));
    arch_ = archs_.back().get();
  };
  parse();
  for (const Stage* stage : plan.transforms()) {
    if (const auto* prune = std::get_if<PruneStage>(stage)) {
      layers_.push_back(reduce(*prune, pool, context));
      top_ = layers_.back().get();
      parse();
      continue;
    }
    if (training_of(*stage) != nullptr) {
      layers_.push_back(trained(*stage, plan, pool, context));
      top_ = layers_.back().get();
      parse();
      continue;
    }
    CheckpointEdits edits;
    if (const auto* inject = std::get_if<InjectOutliersStage>(stage)) {
      edits = inject_outliers(*top_, *arch_, *inject);
    } else if (const auto* rotate = std::get_if<RotateStage>(stage)) {
      RotationPlan rotation = rotate_model(*top_, *arch_, *rotate, pool);
      edits = std::move(rotation.edits);
      notes_.insert(notes_.end(), rotation.notes.begin(), rotation.notes.end());
    } else if (const auto* merge = std::get_if<MergeLoraStage>(stage)) {
      AdapterMerge merged = merge_adapters(
          *top_, *arch_, {{merge->adapter, merge->scale}}, {}, pool);
      edits = std::move(merged.edits);
      notes_.push_back(formatted("merged {} modules of {}",
                                 merged.merged.size(), merge->adapter));
      notes_.insert(notes_.end(), merged.notes.begin(), merged.notes.end());
    } else {
      fail(ErrorCode::kUnsupported, "{}: stage '{}' is not in this version",
           position_of(*stage).to_string(), stage_name(*stage));
    }
    layers_.push_back(overlay(*top_, std::move(edits)));
    top_ = layers_.back().get();
    parse();
  }
}

std::unique_ptr<Checkpoint> TransformedModel::reduce(
    const PruneStage& stage, ThreadPool& pool,
    const TransformContext& context) {
  const std::filesystem::path output =
      context.directory / ("reduced-" + std::to_string(layers_.size()));
  if (!std::filesystem::exists(output)) {
    prune_structure({.checkpoint = top_,
                     .arch = arch_,
                     .stage = &stage,
                     .calibration = context.calibration,
                     .scratch = context.scratch,
                     .output = output,
                     .progress_directory = output.string() + ".steps",
                     .isa = context.isa,
                     .pool = &pool,
                     .progress = context.progress});
  }
  const UnitCount count = unit_count(*arch_, stage.config);
  notes_.push_back(formatted("kept {} of {} {}", count.kept, count.of,
                             unit_name(stage.config.method)));
  const auto rows = read_structured_report(output);
  structured_.insert(structured_.end(), rows.begin(), rows.end());
  return open_checkpoint(output);
}

std::unique_ptr<Checkpoint> TransformedModel::trained(
    const Stage& stage, const StagePlan& plan, ThreadPool& pool,
    const TransformContext& context) {
  const std::filesystem::path output =
      context.directory / formatted("trained-{}", layers_.size());
  if (!std::filesystem::exists(output)) {
    train_model({.checkpoint = top_,
                 .base = base_,
                 .stage = &stage,
                 .plan = &plan,
                 .output = output,
                 .isa = context.isa,
                 .pool = &pool,
                 .progress = context.progress,
                 .log = context.log});
  }
  training_.push_back(read_training_report(output));
  const auto lines = describe(training_.back());
  notes_.insert(notes_.end(), lines.begin(), lines.end());
  return open_checkpoint(output);
}

}  // namespace llmpress
