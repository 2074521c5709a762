#include "compress/pipeline/run/run_jobs.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <span>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/pipeline/run/adapter_variant.h"
#include "compress/pipeline/run/importance_files.h"
#include "compress/pipeline/run/kv_scales.h"
#include "compress/pipeline/run/output_check.h"
#include "compress/pipeline/run/plan_needs.h"
#include "compress/pipeline/run/resume_store.h"
#include "compress/pipeline/run/stage_check.h"
#include "compress/pipeline/training/grid_linears.h"
#include "compress/surgery/structured_shape.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/path_location.h"

namespace llmpress {
namespace {

OutputKind kind_of(const OutputConfig& output) {
  return output.is_adapter() ? OutputKind::kFolder
                             : kind_of(find_output_format(output.format));
}

}  // namespace

std::string result_name(const Recipe& recipe) {
  if (!recipe.name.empty()) return recipe.name;
  return std::filesystem::path(recipe.origin).stem().string();
}

std::vector<VariantJob> jobs_of(const Recipe& recipe) {
  std::vector<VariantJob> jobs;
  const auto add = [&](const std::string& name,
                       const std::optional<OutputConfig>& output,
                       std::span<const Stage> own) {
    if (!output) {
      fail(ErrorCode::kInvalidArgument,
           "{}: '{}' has no output; write output: {{path: ...}} or give "
           "--output",
           recipe.origin, name);
    }
    (void)kind_of(*output);  // refuses what is not written
    jobs.push_back({name, *output, StagePlan(recipe.stages, own)});
    check_adapter_alone(*output, jobs.back().plan);
  };
  if (recipe.variants.empty()) add(result_name(recipe), recipe.output, {});
  for (const Variant& variant : recipe.variants) {
    add(variant.name, variant.output, variant.stages);
  }
  return jobs;
}

std::vector<InputPath> inputs_of(const Recipe& recipe) {
  std::vector<InputPath> inputs{{"the model", recipe.model},
                                {"the recipe", recipe.origin}};
  if (recipe.calibration) {
    inputs.push_back({"the calibration text", recipe.calibration->text});
  }
  if (recipe.evaluate) {
    inputs.push_back({"the evaluation text", recipe.evaluate->text});
  }
  const auto add_files_of = [&](const std::vector<Stage>& stages) {
    for (const Stage& stage : stages) {
      const auto* merge = std::get_if<MergeLoraStage>(&stage);
      if (merge != nullptr) inputs.push_back({"the adapter", merge->adapter});
      const auto* quantize = std::get_if<QuantizeStage>(&stage);
      if (quantize != nullptr && !quantize->importance.empty()) {
        inputs.push_back({"the importance matrix", quantize->importance});
      }
      const TrainStage* const train = training_of(stage);
      if (train == nullptr) continue;
      for (const DomainConfig& domain : train->domains) {
        inputs.push_back({"a training text", domain.text});
        if (!domain.held_out.empty()) {
          inputs.push_back({"a held-out text", domain.held_out});
        }
      }
      if (!train->text.empty()) {
        inputs.push_back({"the training text", train->text});
      }
      if (!train->held_out.empty()) {
        inputs.push_back({"the held-out text", train->held_out});
      }
      if (!train->student.config.empty()) {
        inputs.push_back({"the student's config", train->student.config});
      }
      const auto* const distill = std::get_if<DistillStage>(&stage);
      if (distill != nullptr && !distill->teacher.empty()) {
        inputs.push_back({"the teacher", distill->teacher});
      }
    }
  };
  add_files_of(recipe.stages);
  for (const Variant& variant : recipe.variants) add_files_of(variant.stages);
  return inputs;
}

std::vector<OutputPath> outputs_of(const Recipe& recipe,
                                   const std::vector<VariantJob>& jobs,
                                   const std::filesystem::path& json) {
  std::vector<OutputPath> outputs;
  for (const VariantJob& job : jobs) {
    const std::string of = job.name.empty() ? "" : " of '" + job.name + "'";
    outputs.push_back(
        {"the output" + of, job.output.path, kind_of(job.output)});
    outputs.push_back({"the folder for finished blocks" + of,
                       resume_path(job.output.path), OutputKind::kResume});
  }
  outputs.push_back({"the folder for a model to be trained",
                     untrained_path(jobs), OutputKind::kFolder});
  if (recipe.report) {
    outputs.push_back({"the report", *recipe.report, OutputKind::kReport});
  }
  outputs.push_back({"the file of --json", json, OutputKind::kJsonFile});
  return outputs;
}

std::filesystem::path untrained_path(std::span<const VariantJob> jobs) {
  std::filesystem::path path = resolve_path(jobs.front().output.path);
  path += ".untrained";
  return path;
}

RunTexts load_texts(const Recipe& recipe, std::span<const VariantJob> jobs,
                    const ModelSource& model) {
  RunTexts texts;
  if (recipe.evaluate) {
    texts.evaluation =
        load_evaluation_text(recipe.evaluate->text, *model.tokenizer);
    (void)plan_windows(*texts.evaluation, *recipe.evaluate);
  }
  const bool wanted = std::ranges::any_of(jobs, [&](const VariantJob& job) {
    return calibration_use(job.plan, *model.arch) != CalibrationUse::kNone;
  });
  if (wanted && recipe.calibration) {
    texts.calibration = load_calibration(*recipe.calibration, *model.tokenizer);
  }
  return texts;
}

void check_jobs(const Recipe& recipe, std::span<VariantJob> jobs,
                const ModelSource& model, ThreadPool& pool) {
  for (VariantJob& job : jobs) {
    const Architecture arch =
        planned_architecture(job.plan, model.checkpoint->config_json(),
                             model.checkpoint->path().string());
    check_selections(job.plan, arch);
    check_importance(job.plan, *model.checkpoint, arch);
    check_tuning(job.output, job.plan, *model.checkpoint, arch);
    if (!recipe.calibration &&
        calibration_use(job.plan, *model.arch) == CalibrationUse::kNeeded) {
      fail(ErrorCode::kInvalidArgument,
           "variant '{}' needs calibration, but the recipe has no "
           "'calibration' section",
           job.name);
    }
    if (job.output.is_adapter()) continue;
    check_aware_training(job.plan, arch, pool);
    check_recovery(job.plan, arch, pool);
    check_kv_scales(job.plan, arch, *model.checkpoint, job.output.format);
    OutputCheck check =
        check_output(job.output, job.plan, *model.checkpoint, arch, pool);
    job.plan.assign(std::move(check.changed));
    job.warnings = std::move(check.warnings);
  }
}

std::uint64_t memory_limit_of(const Recipe& recipe, const RunOptions& options) {
  return options.memory_limit != 0 ? options.memory_limit : recipe.memory_limit;
}

MemoryNeed memory_need_of(const VariantJob& job, const Recipe& recipe,
                          const ModelSource& model, CalibrationSize calibration,
                          std::size_t evaluated_tokens) {
  const Architecture& arch = *model.arch;
  std::size_t largest = 0;
  for (const TensorInfo& tensor : model.checkpoint->tensors().tensors()) {
    largest = std::max(largest, tensor.bytes);
  }
  const bool calibrated =
      calibration_use(job.plan, arch) != CalibrationUse::kNone;
  const auto transforms = job.plan.transforms();
  const bool reduces = std::ranges::any_of(transforms, [](const Stage* stage) {
    return std::holds_alternative<PruneStage>(*stage);
  });
  std::optional<Architecture> reduced;
  if (reduces) {
    reduced = planned_architecture(job.plan, model.checkpoint->config_json(),
                                   model.checkpoint->path().string());
  }
  return memory_need({
      .plan = &job.plan,
      .arch = &arch,
      .reduced = reduced ? &*reduced : nullptr,
      .stored = measure_model(*model.checkpoint, arch),
      .largest_tensor = largest,
      .calibration = calibrated ? calibration : CalibrationSize{},
      .evaluated_tokens = recipe.evaluate ? recipe.evaluate->context : 0,
      .scored_tokens = evaluated_tokens,
      .variants = std::max<std::size_t>(1, recipe.variants.size()),
      .copies_in_files = kind_of(job.output) == OutputKind::kFolder,
  });
}

std::size_t evaluated_tokens(const Recipe& recipe, const RunTexts& texts) {
  std::size_t tokens = 0;
  if (!texts.evaluation) return tokens;
  for (const EvaluationWindow& window :
       plan_windows(*texts.evaluation, *recipe.evaluate)) {
    tokens += window.length;
  }
  return tokens;
}

std::size_t peak_of(const VariantJob& job, const MemoryNeed& need) {
  if (job.scratch.empty()) return need.in_memory;
  return job.streams_evaluation ? need.spilled
                                : std::max(need.spilled, need.evaluating);
}

std::vector<std::string> settle_memory(std::span<VariantJob> jobs,
                                       const Recipe& recipe,
                                       const RunOptions& options,
                                       const ModelSource& model,
                                       CalibrationSize calibration,
                                       std::size_t evaluated_tokens) {
  const std::uint64_t limit = memory_limit_of(recipe, options);
  std::vector<std::string> notes;
  if (limit == 0) return notes;
  for (VariantJob& job : jobs) {
    const MemoryNeed need =
        memory_need_of(job, recipe, model, calibration, evaluated_tokens);
    if (need.in_memory <= limit) continue;
    if (need.spilled > limit) {
      fail(ErrorCode::kResource,
           "'{}' does not fit into --memory-limit {} MiB: {} takes {} MiB, the "
           "smallest limit that would do",
           job.name, limit >> 20, need.phase, (need.spilled >> 20) + 1);
    }
    job.scratch = options.scratch;
    if (job.scratch.empty()) job.scratch = recipe.scratch;
    if (job.scratch.empty()) job.scratch = resume_path(job.output.path);
    job.streams_evaluation = need.evaluating > limit;
    notes.push_back(formatted(
        "{}: calibration states {}go to a scratch file of about {} MiB in {}: "
        "with them in memory it would take {} MiB, with the file {} MiB",
        job.name,
        job.streams_evaluation ? "and those of evaluation, block by block, "
                               : "",
        need.scratch >> 20, job.scratch, need.in_memory >> 20,
        peak_of(job, need) >> 20));
  }
  return notes;
}

}  // namespace llmpress
