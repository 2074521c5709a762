#include "compress/pipeline/run/run.h"

#include <chrono>
#include <filesystem>
#include <optional>

#include "compress/core/formatted.h"
#include "compress/core/process_memory.h"
#include "compress/model/model_files.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/pipeline/run/adapter_variant.h"
#include "compress/pipeline/run/model_free.h"
#include "compress/pipeline/run/rank_plan.h"
#include "compress/pipeline/run/recipe_model.h"
#include "compress/pipeline/run/resume_store.h"
#include "compress/pipeline/run/run_fingerprint.h"
#include "compress/pipeline/run/run_jobs.h"
#include "compress/pipeline/run/variant_compressor.h"
#include "recipes/recipe_parser.h"

namespace llmpress {
namespace {

class Run {
 public:
  Run(const Recipe& recipe, const RunOptions& options, ThreadPool& pool)
      : recipe_(recipe), options_(options), pool_(pool) {}

  RunReport run() {
    const auto start = std::chrono::steady_clock::now();
    std::vector<VariantJob> jobs = jobs_of(recipe_);
    std::optional<OutputGuard> guard;
    if (ranks().is_first()) {
      guard.emplace(inputs_of(recipe_),
                    outputs_of(recipe_, jobs, options_.json));
      for (const std::string& note : guard->notes()) add_note(note);
    }
    const RecipeModel model(recipe_, jobs, untrained_path(jobs), ranks());
    std::unique_ptr<Checkpoint> checkpoint =
        ranks().first_then_others([&] { return model.open(); });
    for (const std::string& note : checkpoint->notes()) add_note(note);
    if (!has_known_architecture(*checkpoint)) {
      run_model_free(*checkpoint, jobs);
    } else {
      run_known(std::move(checkpoint), jobs);
    }
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    report_.peak_memory_bytes = peak_memory_bytes();
    report_traffic();
    if (recipe_.report && ranks().is_first()) {
      write_report(report_, *recipe_.report);
    }
    return std::move(report_);
  }

 private:
  const Ranks& ranks() const { return options_.ranks; }

  // What can be wrong with a run is found here, and told by the first rank.
  RunTexts check(std::vector<VariantJob>& jobs,
                 std::vector<std::string>& memory_notes) {
    check_jobs(recipe_, jobs, model_, pool_);
    RunTexts texts = load_texts(recipe_, jobs, model_);
    memory_notes = settle_memory(
        jobs, recipe_, options_, model_,
        share_of_rank(size_of(texts.calibration), options_.ranks.size()),
        evaluated_tokens(recipe_, texts));
    return texts;
  }

  void run_known(std::unique_ptr<Checkpoint> checkpoint,
                 std::vector<VariantJob>& jobs) {
    model_ = open_model(std::move(checkpoint));
    std::vector<std::string> memory_notes;
    take_texts(
        ranks().first_then_others([&] { return check(jobs, memory_notes); }));
    for (const std::string& note : memory_notes) add_note(note);
    describe_run(*model_.checkpoint);
    report_.tokenizer_sha256 = model_.tokenizer->sha256;
    report_.base_size = measure_model(*model_.checkpoint, *model_.arch);
    const RunInputs inputs{
        .checkpoint = model_.checkpoint.get(),
        .arch = model_.arch.get(),
        .calibration = calibration_ ? &*calibration_ : nullptr,
        .model_sha256 = report_.model_sha256,
        .tokenizer_sha256 = report_.tokenizer_sha256,
        .recipe_yaml = report_.recipe_yaml,
        .kernels = report_.kernels};
    for (const VariantJob& job : jobs) {
      if (job.output.is_adapter()) {
        report_.variants.push_back(by_first_rank(
            job, "an adapter is trained", [&](const RunOptions& alone) {
              return tune_variant(inputs, job, alone, pool_);
            }));
        measure_adapter(report_.variants.back(),
                        adapter_numbers(job.plan, *model_.arch));
      } else {
        report_.variants.push_back(compress(inputs, job));
        measure_artifact(report_.variants.back());
      }
    }
    if (text_) evaluate_all(jobs);
  }

  VariantReport compress(const RunInputs& inputs, const VariantJob& job) {
    const auto reason = reason_for_one_rank(job.plan, *model_.arch);
    if (!reason) return compress_variant(inputs, job, options_, pool_);
    return by_first_rank(job, *reason, [&](const RunOptions& alone) {
      return compress_variant(inputs, job, alone, pool_);
    });
  }

  // Work that is not spread: the others wait until it is done.
  template <class Work>
  VariantReport by_first_rank(const VariantJob& job, const std::string& reason,
                              const Work& work) {
    if (!ranks().is_spread()) return work(options_);
    if (options_.log) {
      options_.log(
          formatted("{} is not spread over ranks, the first works "
                    "alone: {}",
                    job.name, reason));
    }
    VariantReport report{.name = job.name,
                         .output = job.output.path.string(),
                         .format = job.output.format};
    if (ranks().is_first()) {
      RunOptions alone = options_;
      alone.ranks = {};
      report = work(alone);
    }
    ranks().barrier();
    return report;
  }

  void report_traffic() {
    if (!ranks().is_spread()) return;
    const RankTraffic own = ranks().traffic();
    for (const std::string& bytes :
         ranks().gather(bytes_of(std::span(&own, 1)))) {
      report_.traffic.push_back(values_of<RankTraffic>(bytes).front());
      if (!options_.log) continue;
      options_.log(formatted("rank {}: sent {}, received {}",
                             report_.traffic.size() - 1,
                             megabytes(report_.traffic.back().sent),
                             megabytes(report_.traffic.back().received)));
    }
  }

  void run_model_free(const Checkpoint& checkpoint,
                      std::vector<VariantJob>& jobs) {
    add_note(model_free_note(checkpoint));
    const TensorModules tensors = find_modules(checkpoint);
    ranks().first_then_others([&] {
      check_model_free(recipe_, jobs, checkpoint, tensors,
                       memory_limit_of(recipe_, options_), pool_);
      return true;
    });
    describe_run(checkpoint);
    report_.base_size = measure_tensors(checkpoint, tensors);
    const RunInputs inputs{.checkpoint = &checkpoint,
                           .model_sha256 = report_.model_sha256,
                           .recipe_yaml = report_.recipe_yaml,
                           .kernels = report_.kernels};
    for (const VariantJob& job : jobs) {
      report_.variants.push_back(
          compress_model_free(inputs, tensors, job, options_, pool_));
      const auto artifact = open_checkpoint(job.output.path);
      report_.variants.back().size =
          measure_tensors(*artifact, find_modules(*artifact));
    }
  }

  void take_texts(RunTexts texts) {
    text_ = std::move(texts.evaluation);
    calibration_ = std::move(texts.calibration);
    if (!calibration_) return;
    for (const std::string& note : calibration_->notes) add_note(note);
  }

  void add_note(const std::string& note) {
    report_.notes.push_back(note);
    if (options_.log) options_.log(note);
  }

  void describe_run(const Checkpoint& checkpoint) {
    report_.version = LLMPRESS_VERSION;
    report_.title = result_name(recipe_);
    report_.recipe_yaml = resolved_yaml(recipe_);
    report_.model = recipe_.model.string();
    report_.model_sha256 = ranks().broadcast(
        ranks().is_first() ? model_sha256(checkpoint, pool_) : "");
    if (calibration_) {
      report_.calibration_sha256 = calibration_->sha256;
      report_.calibration_tokens = calibration_->tokens();
    }
    report_.kernels = kernels_of(options_.isa);
    report_.threads = pool_.size();
  }

  void measure_artifact(VariantReport& variant) {
    const auto checkpoint = open_checkpoint(variant.output);
    const Architecture arch = read_architecture(*checkpoint);
    variant.size = measure_model(*checkpoint, arch);
  }

  // The model with what stays beside it.
  void measure_adapter(VariantReport& variant, std::size_t numbers) {
    variant.size = report_.base_size;
    variant.size.weights += numbers;
    variant.size.weight_bytes += numbers * sizeof(float);
  }

  // A model with what must stay as long as it runs.
  struct Evaluated {
    std::unique_ptr<Checkpoint> checkpoint{};
    AdaptersBeside beside{};
    std::unique_ptr<Decoder> decoder{};
  };

  std::unique_ptr<Decoder> load_decoder(
      const Checkpoint& checkpoint,
      std::shared_ptr<const WeightCompanion> companion = nullptr) const {
    const bool has_prefix = companion && !companion->prefix().empty();
    return std::make_unique<Decoder>(
        checkpoint,
        Decoder::Options{.isa = options_.isa,
                         .kv = kv_format(*recipe_.evaluate),
                         .progress = options_.progress,
                         .companion = std::move(companion),
                         .inputs = input_precision(*recipe_.evaluate),
                         .pool = &pool_,
                         .streamed = !states_.empty() && !has_prefix});
  }

  Evaluated load(const VariantReport& variant) const {
    Evaluated model;
    if (variant.format != kAdapterFormat) {
      model.checkpoint = open_checkpoint(variant.output);
      model.decoder = load_decoder(*model.checkpoint);
      return model;
    }
    model.beside = keep_beside(*model_.checkpoint, *model_.arch,
                               {{variant.output, 1}}, options_.isa, pool_);
    model.decoder =
        load_decoder(*model.beside.checkpoint, model.beside.companion);
    return model;
  }

  // Perplexities of the base and of what was written, from the files.
  void evaluate_all(std::span<const VariantJob> jobs) {
    for (const VariantJob& job : jobs) {
      if (job.streams_evaluation) states_ = job.scratch;
    }
    const std::unique_ptr<Decoder> base = load_decoder(*model_.checkpoint);
    const ModelUnderTest base_model{.name = "base",
                                    .decoder = base.get(),
                                    .size = report_.base_size,
                                    .scratch = states_};
    std::size_t bytes = 0;
    for (const VariantReport& v : report_.variants)
      bytes += v.size.weight_bytes;
    // The base goes through its blocks once for all that are streamed.
    const bool together = bytes <= kCompareAtOnceBytes || !states_.empty();
    const std::size_t at_once = together ? report_.variants.size() : 1;
    for (std::size_t v = 0; v < report_.variants.size(); v += at_once) {
      evaluate_some(base_model,
                    std::span(report_.variants).subspan(v, at_once));
    }
    for (const VariantJob& job : jobs) {
      std::error_code ignored;  // somebody else's, if it is not empty
      if (states_ == resume_path(job.output.path)) {
        std::filesystem::remove(states_, ignored);
      }
    }
  }

  void evaluate_some(const ModelUnderTest& base,
                     std::span<VariantReport> variants) {
    std::vector<Evaluated> loaded;
    std::vector<ModelUnderTest> models;
    for (const VariantReport& variant : variants) {
      loaded.push_back(load(variant));
      models.push_back({.name = variant.name,
                        .decoder = loaded.back().decoder.get(),
                        .size = variant.size,
                        .scratch = states_});
    }
    const Comparison comparison =
        compare(base, models, *text_, *recipe_.evaluate, pool_,
                options_.progress, ranks());
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
  // Of streamed evaluation; empty: models are in memory.
  std::filesystem::path states_{};
  RunReport report_;
};

}  // namespace

RunReport run_recipe(const Recipe& recipe, const RunOptions& options,
                     ThreadPool& pool) {
  return Run(recipe, options, pool).run();
}

}  // namespace llmpress
