#include "compress/pipeline/run/model_free.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "compress/calibration/dense_block.h"
#include "compress/core/formatted.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/reports/sparsity_curve.h"
#include "compress/pipeline/run/importance_files.h"
#include "compress/pipeline/run/linear_compressor.h"
#include "compress/pipeline/run/outcome_bytes.h"
#include "compress/pipeline/run/output_check.h"
#include "compress/pipeline/run/run_fingerprint.h"
#include "compress/pipeline/run/sparsity_allocation.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/config_reader.h"
#include "pruning/method.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

std::string model_type_of(const Checkpoint& checkpoint) {
  const std::string place = config_place(checkpoint.path().string());
  const ConfigReader config =
      ConfigReader::parse(checkpoint.config_json(), place);
  const auto type = config.text("model_type");
  return type ? formatted("{}: model_type '{}' is not known", place, *type)
              : formatted("{}: no model_type is given", place);
}

void append(std::string& list, std::string_view name) {
  list += (list.empty() ? "" : ", ") + std::string(name);
}

std::string quantizers_without_needs() {
  std::string names;
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.delegates() && !any(method.needs(QuantizeConfig{}))) {
      append(names, method.name);
    }
  }
  return names;
}

std::string pruners_without_needs() {
  std::string names;
  for (const WeightPruner& pruner : weight_pruners()) {
    if (!any(pruner.needs(PruneConfig{}))) append(names, pruner.name());
  }
  return names;
}

class Refusal {
 public:
  Refusal(const Recipe& recipe, const Checkpoint& checkpoint)
      : recipe_(recipe), checkpoint_(checkpoint) {}

  void check(const StagePlan& plan) const {
    if (recipe_.evaluate) {
      fail(ErrorCode::kUnsupported,
           "{}, so that nothing can be evaluated: leave 'evaluate' out (--set "
           "evaluate=none)",
           model_type_of(checkpoint_));
    }
    for (const auto stages : {plan.transforms(), plan.recovery()}) {
      for (const Stage* stage : stages) {
        refuse(position_of(*stage), stage_name(*stage));
      }
    }
    if (plan.kv_cache() != nullptr) {
      refuse(plan.kv_cache()->position, "quantize_kv_cache");
    }
    for (const SmoothStage* stage : plan.smoothing()) {
      refuse(stage->position, "smooth");
    }
    for (const PruneStage* stage : plan.pruning()) {
      if (any(needs_of({.prune = stage})) ||
          stage->config.allocation == SparsityAllocation::kOwl) {
        refuse(stage->position,
               formatted("prune by '{}'",
                         find_weight_pruner(stage->config.method)->name()));
      }
    }
    for (const QuantizeStage* stage : plan.quantizing()) {
      if (method_of(stage->config).chooses_precision() ||
          any(needs_of({.quantize = stage}))) {
        refuse(stage->position,
               formatted("quantize by '{}'", stage->config.method));
      }
    }
  }

 private:
  [[noreturn]] void refuse(const SourcePosition& position,
                           std::string_view what) const {
    fail(ErrorCode::kUnsupported,
         "{}: {} runs the model or looks at its blocks, and {}. What works on "
         "such a model: quantize by {}, with inputs that are not rounded or "
         "rounded at run time; prune by {}",
         position.to_string(), what, model_type_of(checkpoint_),
         quantizers_without_needs(), pruners_without_needs());
  }

  const Recipe& recipe_;
  const Checkpoint& checkpoint_;
};

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < kShown; ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  return names.size() <= kShown
             ? text
             : formatted("{} and {} more", text, names.size() - kShown);
}

class ModelFreeVariant {
 public:
  ModelFreeVariant(const RunInputs& inputs, const TensorModules& tensors,
                   const VariantJob& job, const RunOptions& options,
                   ThreadPool& pool)
      : inputs_(inputs),
        checkpoint_(*inputs.checkpoint),
        tensors_(tensors),
        job_(job),
        importance_(job.plan, *inputs.checkpoint),
        options_(options),
        ranks_(options.ranks),
        pool_(pool) {
    if (!ranks_.is_first()) return;
    writer_ =
        make_artifact_writer({.output = job.output.path,
                              .format = job.output.format,
                              .max_shard_bytes = job.output.max_shard_size,
                              .source = inputs.checkpoint->path(),
                              .pool = &pool_});
  }

  VariantReport run() {
    report_ = {.name = job_.name,
               .output = job_.output.path.string(),
               .format = job_.output.format,
               .pruning = describe_pruning(job_.plan),
               .notes = job_.warnings};
    add(selection_notes(job_.plan, tensors_.modules));
    add(left_alone(tensors_, job_.plan));
    for (const std::string& note : report_.notes) log(note);
    for (std::size_t m = 0; m < tensors_.modules.size(); m += ranks_.size()) {
      report(options_.progress, {.phase = "compress " + job_.name,
                                 .done = m,
                                 .total = tensors_.modules.size(),
                                 .detail = tensors_.modules[m].name});
      add_modules(m);
    }
    if (ranks_.is_first()) write_rest();
    ranks_.barrier();
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
            .count();
    return std::move(report_);
  }

 private:
  void add(std::vector<std::string> notes) {
    report_.notes.insert(report_.notes.end(), notes.begin(), notes.end());
  }
  void log(const std::string& line) const {
    if (options_.log) options_.log(line);
  }

  // Its bias stays the tensor that it is.
  LinearWeights read_without_bias(const std::string& name) const {
    LinearWeights linear = checkpoint_.read_linear(name);
    linear.bias.clear();
    return linear;
  }

  // Modules from `first` on, one for each rank; the first writes all of them.
  void add_modules(std::size_t first) {
    const std::size_t count =
        std::min(ranks_.size(), tensors_.modules.size() - first);
    const auto changed = [&](std::size_t r) {
      const Module& module = tensors_.modules[first + r];
      return job_.plan.treatment(module.name, module.role).changes();
    };
    LinearOutcome own;
    std::string bytes;
    if (ranks_.rank() < count && changed(ranks_.rank())) {
      own = compress(tensors_.modules[first + ranks_.rank()]);
      if (!ranks_.is_first()) bytes = to_bytes(own);
    }
    const std::vector<std::string> all = ranks_.gather_on_first(bytes);
    for (std::size_t r = 0; r < count && ranks_.is_first(); ++r) {
      const Module& module = tensors_.modules[first + r];
      if (!changed(r)) {
        keep(module);
      } else {
        add(module,
            r == 0 ? std::exchange(own, {}) : outcome_from_bytes(all[r]));
      }
    }
  }

  LinearOutcome compress(const Module& module) const {
    LinearJob job{
        .name = module.name,
        .treatment = job_.plan.treatment(module.name, module.role),
        .importance = &importance_,
    };
    if (job.treatment.prune != nullptr) {
      job.sparsity = job.treatment.prune->config.target_sparsity();
    }
    if (compresses_by_rows(job.treatment, module.in, nullptr)) {
      LinearRows rows = checkpoint_.read_linear_rows(module.name);
      rows.rest.bias.clear();
      return compress_rows(job, rows, pool_);
    }
    const DenseLinear dense =
        dense_linear(read_without_bias(module.name), pool_);
    job.linear = &dense;
    return compress_linear(job, pool_);
  }

  void add(const Module& module, const LinearOutcome& outcome) {
    log(layer_line(outcome.report));
    for (const std::string& note : outcome.report.notes) {
      log(formatted("{}: {}", module.name, note));
    }
    writer_->add_linear(module.name, outcome.weights);
    report_.linear_nonzeros += static_cast<double>(module.out * module.in) *
                               (1 - outcome.report.sparsity);
    report_.layers.push_back(outcome.report);
  }

  // A packed weight keeps its codes, in the words of the output's format.
  void keep(const Module& module) {
    if (checkpoint_.plain_weight(module.name) != nullptr) return;
    writer_->add_linear(module.name, read_without_bias(module.name));
    written_.insert(module.name);
  }

  bool is_written(const std::string& tensor) const {
    const Module* const module = tensors_.owner(tensor);
    return module != nullptr &&
           (written_.contains(module->name) ||
            job_.plan.treatment(module->name, module->role).changes());
  }

  void write_rest() {
    copy_others();
    writer_->add_file("recipe.yaml", inputs_.recipe_yaml);
    writer_->add_file("llmpress.json", provenance_of(inputs_, job_.name));
    writer_->finish(checkpoint_.config_json());
  }

  void copy_others() {
    const TensorReader& reader = checkpoint_.tensors();
    for (const TensorInfo& info : reader.tensors()) {
      if (is_written(info.name)) continue;
      const TensorBytes data = reader.read(info);
      writer_->add_tensor({.name = info.name,
                           .dtype = info.dtype,
                           .shape = info.shape,
                           .bytes = {data.bytes.begin(), data.bytes.end()}});
    }
  }

  const std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
  const RunInputs& inputs_;
  const Checkpoint& checkpoint_;
  const TensorModules& tensors_;
  const VariantJob& job_;
  ImportanceFiles importance_;
  const RunOptions& options_;
  const Ranks ranks_;
  ThreadPool& pool_;
  std::unique_ptr<ArtifactWriter> writer_;      // of the first rank
  std::set<std::string, std::less<>> written_;  // packed before, kept
  VariantReport report_;
};

}  // namespace

std::string model_free_note(const Checkpoint& checkpoint) {
  return formatted(
      "{}: the architecture is unknown; matrices are taken for Linears [out, "
      "in] by name and shape, and the result is not evaluated",
      model_type_of(checkpoint));
}

void check_model_free(const Recipe& recipe, std::span<VariantJob> jobs,
                      const Checkpoint& checkpoint,
                      const TensorModules& tensors, std::uint64_t memory_limit,
                      ThreadPool& pool) {
  for (VariantJob& job : jobs) {
    Refusal(recipe, checkpoint).check(job.plan);
    check_selections(job.plan, tensors.modules);
    OutputCheck check =
        check_output(job.output, job.plan, checkpoint, tensors.modules, pool);
    job.plan.assign(std::move(check.changed));
    job.warnings = std::move(check.warnings);
  }
  const std::size_t bytes = model_free_peak_bytes(tensors);
  if (memory_limit != 0 && bytes > memory_limit) {
    fail(ErrorCode::kResource,
         "{}: its largest matrix takes about {} MiB, the limit is {} MiB",
         checkpoint.path(), bytes >> 20, memory_limit >> 20);
  }
}

std::vector<std::string> left_alone(const TensorModules& tensors,
                                    const StagePlan& plan) {
  std::map<std::string, std::vector<std::string>> by_reason;
  for (const auto& [module, reason] : tensors.reserved) {
    const auto at = std::ranges::find(tensors.modules, module, &Module::name);
    if (!plan.treatment(module, at->role).changes()) {
      by_reason[reason].push_back(module);
    }
  }
  for (const auto& [tensor, reason] : tensors.passed) {
    by_reason[reason].push_back(tensor);
  }
  std::vector<std::string> sentences;
  for (const auto& [reason, names] : by_reason) {
    sentences.push_back(formatted("left alone, {}: {}", reason, listed(names)));
  }
  return sentences;
}

std::size_t model_free_peak_bytes(const TensorModules& tensors) {
  std::size_t largest = 0;
  for (const Module& module : tensors.modules) {
    largest = std::max(largest, module.out * module.in);
  }
  return 4 * sizeof(float) * largest;
}

ModelSize measure_tensors(const Checkpoint& checkpoint,
                          const TensorModules& tensors) {
  ModelSize size;
  for (const Module& module : tensors.modules) {
    const std::size_t elements = module.out * module.in;
    size.weights += elements;
    if (module.role != ModuleRole::kBlockLinear) continue;
    const TensorInfo* const plain = checkpoint.plain_weight(module.name);
    size.linear_weights += elements;
    size.linear_bytes +=
        plain != nullptr
            ? plain->bytes
            : stored_bytes(checkpoint.read_linear(module.name).weight);
  }
  for (const TensorInfo& info : checkpoint.tensors().tensors()) {
    if (!is_metadata_tensor(info.name)) size.weight_bytes += info.bytes;
    if (tensors.owner(info.name) != nullptr) continue;
    std::size_t elements = 1;
    for (const std::size_t d : info.shape) elements *= d;
    size.weights += elements;
  }
  return size;
}

VariantReport compress_model_free(const RunInputs& inputs,
                                  const TensorModules& tensors,
                                  const VariantJob& job,
                                  const RunOptions& options, ThreadPool& pool) {
  return ModelFreeVariant(inputs, tensors, job, options, pool).run();
}

}  // namespace llmpress
