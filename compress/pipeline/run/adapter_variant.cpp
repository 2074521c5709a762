#include "compress/pipeline/run/adapter_variant.h"

#include <chrono>

#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"
#include "compress/pipeline/run/resume_store.h"
#include "compress/pipeline/run/run_fingerprint.h"
#include "compress/pipeline/training/trained_model.h"
#include "compress/pipeline/training/tuned_adapter.h"

namespace llmpress {
namespace {

const TuneStage& only_stage(const StagePlan& plan) {
  return std::get<TuneStage>(*plan.transforms().front());
}

bool is_packed(const Checkpoint& checkpoint, const Architecture& arch,
               std::size_t layer, std::size_t linear) {
  const LinearSpec& spec = arch.block(layer).linears[linear];
  return shared_tensor(checkpoint, arch.block_name(layer), spec) == nullptr &&
         checkpoint.plain_weight(arch.linear_name(layer, linear)) == nullptr;
}

void check_dense(const TuneStage& stage, const Checkpoint& checkpoint,
                 const Architecture& arch) {
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      if (!is_packed(checkpoint, arch, layer, l)) continue;
      fail(ErrorCode::kUnsupported,
           "{}: tune: '{}' is packed, and the adapter would be merged: write "
           "the adapter by itself, output: {{format: {}}}",
           stage.position.to_string(), arch.linear_name(layer, l),
           kAdapterFormat);
    }
  }
}

void check_mergeable(const TuneStage& stage) {
  if (can_be_merged(stage.adapter.method)) return;
  fail(ErrorCode::kInvalidArgument,
       "{}: tune: what this method learns is no change of weights and cannot "
       "be merged: write the adapter by itself, output: {{format: {}}}",
       stage.position.to_string(), kAdapterFormat);
}

}  // namespace

void check_adapter_alone(const OutputConfig& output, const StagePlan& plan) {
  if (!output.is_adapter()) return;
  const bool alone =
      plan.transforms().size() == 1 &&
      std::holds_alternative<TuneStage>(*plan.transforms().front()) &&
      plan.smoothing().empty() && plan.pruning().empty() &&
      plan.quantizing().empty() && plan.kv_cache() == nullptr;
  if (alone) return;
  fail(ErrorCode::kInvalidArgument,
       "{}: format '{}' writes the adapter of a 'tune' stage, beside the model "
       "as it is: that stage stands alone, found {}",
       output.path, kAdapterFormat,
       plan.empty() ? "none" : "other stages than that");
}

void check_tuning(const OutputConfig& output, const StagePlan& plan,
                  const Checkpoint& checkpoint, const Architecture& arch) {
  for (const Stage* const stage : plan.transforms()) {
    const auto* const tune = std::get_if<TuneStage>(stage);
    if (tune == nullptr) continue;
    check_adapter(*tune, arch);
    if (output.is_adapter()) continue;
    check_mergeable(*tune);
    check_dense(*tune, checkpoint, arch);
  }
}

std::size_t adapter_numbers(const StagePlan& plan, const Architecture& arch) {
  return adapter_numbers(only_stage(plan), arch);
}

VariantReport tune_variant(const RunInputs& inputs, const VariantJob& job,
                           const RunOptions& options, ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
  VariantReport report{.name = job.name,
                       .output = job.output.path.string(),
                       .format = job.output.format,
                       .notes = job.warnings};
  ResumeStore store(resume_path(job.output.path),
                    fingerprint_of(inputs, job, pool), options.resume);
  train_model(
      {.checkpoint = inputs.checkpoint,
       .base = inputs.checkpoint,
       .stage = job.plan.transforms().front(),
       .output = job.output.path,
       .adapter_alone =
           TrainingStageJob::AdapterAlone{
               .work = store.directory() / "trained-0.training",
               .files = {{"recipe.yaml", inputs.recipe_yaml},
                         {"llmpress.json", provenance_of(inputs, job.name)}}},
       .isa = options.isa,
       .pool = &pool,
       .progress = options.progress,
       .log = options.log});
  store.remove();
  report.training.push_back(read_training_report(job.output.path));
  for (const std::string& line : describe(report.training.back())) {
    if (options.log) options.log(line);
    report.notes.push_back(line);
  }
  report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return report;
}

}  // namespace llmpress
