#include <algorithm>
#include <map>

#include "compress/core/formatted.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/run/adapter_variant.h"
#include "compress/pipeline/run/auto_precision.h"
#include "compress/pipeline/run/block_rounding.h"
#include "compress/pipeline/run/kv_scales.h"
#include "compress/pipeline/run/model_free.h"
#include "compress/pipeline/run/plan_needs.h"
#include "compress/pipeline/run/recipe_model.h"
#include "compress/pipeline/run/run.h"
#include "compress/pipeline/run/run_jobs.h"
#include "compress/pipeline/run/stage_check.h"
#include "compress/pipeline/run/time_model.h"
#include "compress/pipeline/run/variant_compressor.h"
#include "compress/pipeline/training/grid_linears.h"
#include "compress/pipeline/training/training_cost.h"
#include "compress/surgery/structured_experts.h"
#include "compress/surgery/structured_shape.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

// Stored bytes of a Linear after its treatment, by rounding a zero weight of
// the same shape: sizes depend on nothing else. Sizes repeat from block to
// block.
class SizePredictor {
 public:
  explicit SizePredictor(ThreadPool& pool) : pool_(pool) {}

  std::pair<std::size_t, std::string> predict(
      const PackedWeight& stored, const LinearTreatment& treatment) {
    if (treatment.quantize == nullptr) {
      return {stored_bytes(stored), describe(stored)};
    }
    const std::size_t out = rows_of(stored), in = cols_of(stored);
    if (treatment.quantize->target_bits) {  // widths are chosen during the run
      const double bits = *treatment.quantize->target_bits;
      return {
          static_cast<std::size_t>(static_cast<double>(out * in) * bits / 8),
          "chosen widths"};
    }
    const auto key = std::make_tuple(treatment.quantize, out, in);
    if (const auto known = sizes_.find(key); known != sizes_.end()) {
      return known->second;
    }
    const MatrixF zero(out, in);
    const PackedWeight packed =
        round_to_nearest(zero.view(), treatment.quantize->config, pool_);
    return sizes_[key] = {stored_bytes(packed), describe(packed)};
  }

 private:
  ThreadPool& pool_;
  std::map<std::tuple<const QuantizeStage*, std::size_t, std::size_t>,
           std::pair<std::size_t, std::string>>
      sizes_;
};

std::string method_of(const LinearTreatment& treatment) {
  std::string name;
  if (treatment.prune != nullptr) name = "prune";
  if (treatment.quantize != nullptr) {
    name += (name.empty() ? "" : "+") + treatment.quantize->config.method;
  }
  return name.empty() ? "kept" : name;
}

// A Linear as the stages that pack it find it: as it is stored, or, once
// structured pruning has changed its shape, dense.
PackedWeight planned_input(const ModelSource& model, const Architecture& arch,
                           std::size_t layer, std::size_t linear) {
  const LinearSpec& spec = arch.block(layer).linears[linear];
  // Of the same name: where experts went, others have their numbers.
  const auto& all = model.arch->block(layer).linears;
  const auto found = std::ranges::find(all, spec.name, &LinearSpec::name);
  if (found != all.end()) {
    linear = static_cast<std::size_t>(found - all.begin());
  }
  PackedWeight stored =
      read_block_linear(*model.checkpoint, *model.arch, layer, linear).weight;
  if (rows_of(stored) == spec.out && cols_of(stored) == spec.in) return stored;
  const auto* dense = std::get_if<DenseWeight>(&stored);
  const MatrixF zero(spec.out, spec.in);
  return make_dense(zero.view(), dense == nullptr ? DType::kF32 : dense->dtype);
}

PlannedLayer planned_layer(const std::string& name, const PackedWeight& stored,
                           const LinearTreatment& treatment,
                           SizePredictor& predictor) {
  const auto [bytes, becomes] = predictor.predict(stored, treatment);
  return {.name = name,
          .stored_as = describe(stored),
          .becomes = becomes,
          .method = method_of(treatment),
          .out = rows_of(stored),
          .in = cols_of(stored),
          .bytes_before = stored_bytes(stored),
          .bytes_after = bytes};
}

Machine machine_like_this(double products, const RunOptions& options,
                          const ThreadPool& pool) {
  return {.products = products,
          .threads = static_cast<double>(pool.size()),
          .network = options.planned_network};
}

// Beside the finished blocks and the artifact, whose peak is `later`: the model
// after each structured pruning, in the types of the model; and while that is
// written, twice for as long as it is spooled, its Linears in float32. Weights that
// learn along with masks lie there with two moments, twice while they are replaced.
std::size_t disk_with_reductions(const StagePlan& plan, const ModelSize& before,
                                 const Architecture& arch, std::size_t ends,
                                 std::size_t later) {
  const auto reductions = static_cast<std::size_t>(
      std::ranges::count_if(plan.transforms(), [](const Stage* stage) {
        return std::holds_alternative<PruneStage>(*stage);
      }));
  if (reductions == 0 || before.linear_weights == 0) return later;
  std::size_t weights = 0;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (const LinearSpec& spec : arch.block(layer).linears) {
      weights += spec.out * spec.in;
    }
  }
  const double stored_bytes_each = static_cast<double>(before.linear_bytes) /
                                   static_cast<double>(before.linear_weights);
  const std::size_t reduced =
      ends + static_cast<std::size_t>(stored_bytes_each *
                                      static_cast<double>(weights));
  const std::size_t writing =
      (reductions + 1) * reduced + weights * sizeof(float);
  const bool weights_learn =
      std::ranges::any_of(plan.transforms(), [](const Stage* stage) {
        const auto* const prune = std::get_if<PruneStage>(stage);
        return prune != nullptr && prune->config.learns_weights();
      });
  const std::size_t learned =
      weights_learn ? 3 * sizeof(float) * before.weights : 0;
  return std::max({later + reductions * reduced, writing + learned,
                   reduced * (reductions - 1) + 2 * learned});
}

PlannedVariant plan_variant(const VariantJob& job, const Recipe& recipe,
                            const RunOptions& options, const ModelSource& model,
                            CalibrationSize calibration, std::size_t evaluated,
                            ThreadPool& pool) {
  const Architecture arch =
      planned_architecture(job.plan, model.checkpoint->config_json(),
                           model.checkpoint->path().string());
  PlannedVariant planned{.name = job.name,
                         .output = job.output.path.string(),
                         .format = job.output.format,
                         .notes = selection_notes(job.plan, arch),
                         .warnings = job.warnings};
  if (job.plan.kv_cache() != nullptr) {
    planned.notes.push_back(describe_kv_scales(*job.plan.kv_cache(), arch));
  }
  if (job.output.is_adapter()) {
    planned.output_bytes = sizeof(float) * adapter_numbers(job.plan, arch);
    planned.notes.push_back(
        "an adapter alone; its training is in neither memory nor time below");
    return planned;
  }
  SizePredictor predictor(pool);
  const ModelSize before = measure_model(*model.checkpoint, *model.arch);
  std::size_t largest_block = 0, linear_bytes = 0;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    std::size_t block_bytes = 0;
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      const std::string name = arch.linear_name(layer, l);
      const LinearTreatment treatment = treatment_of(job.plan, arch, layer, l);
      planned.layers.push_back(planned_layer(
          name, planned_input(model, arch, layer, l), treatment, predictor));
      block_bytes += planned.layers.back().bytes_after;
    }
    largest_block = std::max(largest_block, block_bytes);
    linear_bytes += block_bytes;
  }
  const std::size_t outside = before.weight_bytes - before.linear_bytes;
  const std::size_t ends = outside / model.arch->hidden * arch.hidden;
  planned.output_bytes = ends + linear_bytes;
  // Finished blocks, the assembled file, and the writer's spool where it does not
  // take Linears from the blocks as they lie there.
  const std::string& format = job.output.format;
  const bool spools = format != "compressed-tensors" && format != "hdf5";
  planned.disk_bytes = disk_with_reductions(
      job.plan, before, arch, ends,
      linear_bytes + (spools ? 2 : 1) * planned.output_bytes);
  const CalibrationSize used =
      calibration_use(job.plan, arch) == CalibrationUse::kNone
          ? CalibrationSize{}
          : calibration;
  const CalibrationSize of_rank =
      share_of_rank(calibration, options.planned_ranks);
  const MemoryNeed need =
      memory_need_of(job, recipe, model, of_rank, evaluated);
  planned.peak_memory_bytes = peak_of(job, need);
  if (!job.scratch.empty()) planned.disk_bytes += need.scratch;
  const double rate = product_rate(pool);
  const SpreadCost cost = cost_on(
      work_of(job.plan, arch, used.tokens, used.sequence_tokens,
              before.weight_bytes, planned.output_bytes, linear_bytes,
              kept_inputs(job, of_rank, wants_reference(job.plan, arch))),
      machine_like_this(rate, options, pool), options.planned_ranks);
  planned.seconds = cost.seconds;
  planned.traffic_bytes = static_cast<std::size_t>(cost.traffic);
  for (const Stage* stage : job.plan.training()) {
    const double flops = training_flops(arch, *stage);
    planned.seconds += flops / rate;
    if (flops == 0) {
      planned.notes.push_back(
          formatted("{}: how long it trains depends on the text, so that is "
                    "not in the time below",
                    stage_name(*stage)));
    }
  }
  return planned;
}

RunPlan plan_model_free(const Recipe& recipe, const Checkpoint& checkpoint,
                        std::vector<VariantJob>& jobs,
                        const RunOptions& options, ThreadPool& pool) {
  const TensorModules tensors = find_modules(checkpoint);
  check_model_free(recipe, jobs, checkpoint, tensors,
                   memory_limit_of(recipe, options), pool);
  const ModelSize before = measure_tensors(checkpoint, tensors);
  RunPlan plan{.model = recipe.model.string()};
  for (const VariantJob& job : jobs) {
    PlannedVariant planned{.name = job.name,
                           .output = job.output.path.string(),
                           .format = job.output.format,
                           .notes = {model_free_note(checkpoint)},
                           .warnings = job.warnings,
                           .output_bytes = before.weight_bytes,
                           .peak_memory_bytes = model_free_peak_bytes(tensors)};
    for (auto notes : {selection_notes(job.plan, tensors.modules),
                       left_alone(tensors, job.plan)}) {
      planned.notes.insert(planned.notes.end(), notes.begin(), notes.end());
    }
    SizePredictor predictor(pool);
    double weights = 0;
    for (const Module& module : tensors.modules) {
      const LinearTreatment treatment =
          job.plan.treatment(module.name, module.role);
      if (!treatment.changes()) continue;
      const PlannedLayer& layer = planned.layers.emplace_back(
          planned_layer(module.name, checkpoint.read_linear(module.name).weight,
                        treatment, predictor));
      planned.output_bytes += layer.bytes_after;
      planned.output_bytes -=
          std::min(planned.output_bytes, layer.bytes_before);
      weights +=
          static_cast<double>(module.out) * static_cast<double>(module.in);
    }
    planned.disk_bytes = 2 * planned.output_bytes;
    planned.seconds =
        cost_on({.weights = weights,
                 .read = 2.0 * static_cast<double>(before.weight_bytes),
                 .written = 3.0 * static_cast<double>(planned.output_bytes),
                 .blocks = tensors.modules.size()},
                machine_like_this(1, options, pool), options.planned_ranks)
            .seconds;
    plan.variants.push_back(std::move(planned));
  }
  return plan;
}

}  // namespace

RunPlan plan_recipe(const Recipe& recipe, const RunOptions& options,
                    ThreadPool& pool) {
  std::vector<VariantJob> jobs = jobs_of(recipe);
  check_outputs(inputs_of(recipe), outputs_of(recipe, jobs, options.json));
  const RecipeModel recipe_model(recipe, jobs, untrained_path(jobs));
  std::unique_ptr<Checkpoint> checkpoint = recipe_model.open();
  if (!has_known_architecture(*checkpoint)) {
    return plan_model_free(recipe, *checkpoint, jobs, options, pool);
  }
  const ModelSource model = open_model(std::move(checkpoint));
  check_jobs(recipe, jobs, model, pool);
  const RunTexts texts = load_texts(recipe, jobs, model);
  RunPlan plan{.model = recipe.model.string()};
  if (texts.calibration) plan.calibration_tokens = texts.calibration->tokens();
  const CalibrationSize calibration = size_of(texts.calibration);
  const std::size_t evaluated = evaluated_tokens(recipe, texts);
  plan.ranks = options.planned_ranks;
  plan.notes = settle_memory(jobs, recipe, options, model,
                             share_of_rank(calibration, options.planned_ranks),
                             evaluated);
  for (const VariantJob& job : jobs) {
    plan.variants.push_back(plan_variant(job, recipe, options, model,
                                         calibration, evaluated, pool));
  }
  return plan;
}

}  // namespace llmpress
