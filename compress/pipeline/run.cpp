#include "compress/pipeline/run.h"

#include <sys/resource.h>

#include <chrono>
#include <optional>

#include "compress/core/error.h"
#include "compress/core/linalg.h"
#include "compress/pipeline/model_source.h"
#include "compress/pipeline/run_jobs.h"
#include "compress/pipeline/stage_check.h"
#include "compress/pipeline/structured_shape.h"
#include "compress/pipeline/variant_compressor.h"
#include "recipes/recipe_parser.h"

namespace llmpress {
namespace {

// Models whose stored weights add up to no more than this are compared in one
// pass; larger ones one by one beside the base.
constexpr std::size_t kCompareAtOnceBytes = std::size_t{2} << 30;

std::size_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;  // Linux: kilobytes
}

class Run {
 public:
  Run(const Recipe& recipe, const RunOptions& options, ThreadPool& pool)
      : recipe_(recipe), options_(options), pool_(pool) {}

  RunReport run() {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<VariantJob> jobs = jobs_of(recipe_);
    const OutputGuard guard(inputs_of(recipe_),
                            outputs_of(recipe_, jobs, options_.json));
    for (const std::string& note : guard.notes()) add_note(note);
    model_ = open_recipe_model(recipe_);
    for (const VariantJob& job : jobs) check_stages(job);
    load_texts(jobs);
    check_memory(jobs);
    describe_run();
    const RunInputs inputs{
        .checkpoint = model_.checkpoint.get(),
        .arch = model_.arch.get(),
        .calibration = calibration_ ? &*calibration_ : nullptr,
        .model_sha256 = report_.model_sha256,
        .tokenizer_sha256 = report_.tokenizer_sha256,
        .recipe_yaml = report_.recipe_yaml};
    for (const VariantJob& job : jobs) {
      report_.variants.push_back(
          compress_variant(inputs, job, options_, pool_));
      measure_artifact(report_.variants.back());
    }
    if (text_) evaluate_all();
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    report_.peak_memory_bytes = peak_memory_bytes();
    if (recipe_.report) write_report(report_, *recipe_.report);
    return std::move(report_);
  }

 private:
  // Throws for structured pruning that the model does not allow, and for names
  // that the pruned model does not have.
  void check_stages(const VariantJob& job) const {
    check_selections(job.plan, planned_architecture(
                                   job.plan, model_.checkpoint->config_json(),
                                   model_.checkpoint->path().string()));
  }

  // Everything that a text can be wrong about is found before work starts.
  void load_texts(std::span<const VariantJob> jobs) {
    if (recipe_.evaluate) {
      text_ = load_evaluation_text(recipe_.evaluate->text, *model_.tokenizer);
      (void)plan_windows(*text_, *recipe_.evaluate);
    }
    bool wanted = false;
    for (const VariantJob& job : jobs) {
      wanted = wanted ||
               calibration_use(job.plan, *model_.arch) != CalibrationUse::kNone;
    }
    if (!wanted || !recipe_.calibration) return;
    calibration_ = load_calibration(*recipe_.calibration, *model_.tokenizer);
    for (const std::string& note : calibration_->notes) add_note(note);
  }

  void add_note(const std::string& note) {
    report_.notes.push_back(note);
    if (options_.log) options_.log(note);
  }

  void check_memory(std::span<const VariantJob> jobs) const {
    if (options_.memory_limit == 0) return;
    for (const VariantJob& job : jobs) {
      const bool calibrated =
          calibration_ &&
          calibration_use(job.plan, *model_.arch) != CalibrationUse::kNone;
      const std::size_t bytes = predicted_peak_bytes(
          job.plan, *model_.arch, calibrated ? calibration_->tokens() : 0);
      if (bytes <= options_.memory_limit) continue;
      throw Error(ErrorCode::kResource,
                  "'" + job.name + "' needs about " +
                      std::to_string(bytes >> 20) + " MiB, the limit is " +
                      std::to_string(options_.memory_limit >> 20) +
                      " MiB; fewer calibration samples or shorter ones need "
                      "less");
    }
  }

  void describe_run() {
    report_.version = LLMPRESS_VERSION;
    report_.title = result_name(recipe_);
    report_.recipe_yaml = resolved_yaml(recipe_);
    report_.model = recipe_.model.string();
    report_.model_sha256 = model_sha256(*model_.checkpoint);
    report_.tokenizer_sha256 = model_.tokenizer->sha256;
    if (calibration_) {
      report_.calibration_sha256 = calibration_->sha256;
      report_.calibration_tokens = calibration_->tokens();
    }
    report_.kernels =
        std::string(isa_name(options_.isa)) + ", OpenBLAS " + blas_core_name();
    report_.threads = pool_.size();
    report_.base_size = measure_model(*model_.checkpoint, *model_.arch);
  }

  void measure_artifact(VariantReport& variant) {
    const auto checkpoint = open_checkpoint(variant.output);
    const Architecture arch =
        parse_architecture(checkpoint->config_json(), variant.output);
    variant.size = measure_model(*checkpoint, arch);
  }

  Decoder load_decoder(const Checkpoint& checkpoint) const {
    return Decoder(checkpoint, {.isa = options_.isa,
                                .kv = kv_format(*recipe_.evaluate),
                                .progress = options_.progress});
  }

  // Perplexities of the base and of what was written, from the files.
  void evaluate_all() {
    const Decoder base = load_decoder(*model_.checkpoint);
    const ModelUnderTest base_model{
        .name = "base", .decoder = &base, .size = report_.base_size};
    std::size_t bytes = 0;
    for (const VariantReport& v : report_.variants)
      bytes += v.size.weight_bytes;
    const std::size_t at_once =
        bytes <= kCompareAtOnceBytes ? report_.variants.size() : 1;
    for (std::size_t v = 0; v < report_.variants.size(); v += at_once) {
      evaluate_some(base_model,
                    std::span(report_.variants).subspan(v, at_once));
    }
  }

  void evaluate_some(const ModelUnderTest& base,
                     std::span<VariantReport> variants) {
    std::vector<std::unique_ptr<Decoder>> decoders;
    std::vector<ModelUnderTest> models;
    for (const VariantReport& variant : variants) {
      decoders.push_back(std::make_unique<Decoder>(
          load_decoder(*open_checkpoint(variant.output))));
      models.push_back({.name = variant.name,
                        .decoder = decoders.back().get(),
                        .size = variant.size});
    }
    const Comparison comparison = compare(
        base, models, *text_, *recipe_.evaluate, pool_, options_.progress);
    report_.base = comparison.base;
    for (std::size_t v = 0; v < variants.size(); ++v) {
      variants[v].evaluation = comparison.models[v].evaluation;
      variants[v].divergence = comparison.models[v].divergence;
    }
  }

  const Recipe& recipe_;
  const RunOptions& options_;
  ThreadPool& pool_;
  ModelSource model_;
  std::optional<CalibrationSet> calibration_;
  std::optional<EvaluationText> text_;
  RunReport report_;
};

}  // namespace

RunReport run_recipe(const Recipe& recipe, const RunOptions& options,
                     ThreadPool& pool) {
  return Run(recipe, options, pool).run();
}

}  // namespace llmpress
