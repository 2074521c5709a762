#include "compress/pipeline/training/trained_model.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/heap_reuse.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "compress/pipeline/evaluation/evaluation.h"
#include "compress/pipeline/evaluation/model_copy.h"
#include "compress/pipeline/run/structured_pruning.h"
#include "compress/pipeline/training/difference_objective.h"
#include "compress/pipeline/training/grid_linears.h"
#include "compress/pipeline/training/learning_parts.h"
#include "compress/pipeline/training/random_model.h"
#include "compress/pipeline/training/stage_teacher.h"
#include "compress/pipeline/training/stage_texts.h"
#include "compress/pipeline/training/trained_checkpoint.h"
#include "compress/pipeline/training/training_store.h"
#include "compress/pipeline/training/tuned_adapter.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr const char* kReportFile = "training.json";

class ModelTraining {
 public:
  explicit ModelTraining(const TrainingStageJob& job)
      : job_(job),
        stage_(*training_of(*job.stage)),
        work_(job.adapter_alone ? job.adapter_alone->work
                                : fs::path(job.output.string() + ".training")) {
  }

  void run() {
    fs::create_directories(work_);
    make_student();
    read_data();
    prepare_teacher();
    TrainableModel model(*student_,
                         {.isa = job_.isa,
                          .learning = learning(),
                          .kv = kv_format(),
                          .keep_activations = stage_.config.keep_activations,
                          .progress = job_.progress});
    if (model.parameters().empty()) {
      fail(ErrorCode::kInvalidArgument,
           "{}: the model has nothing of what 'learn' names: nothing learns",
           stage_.position.to_string());
    }
    make_objective(model);
    FileTrainingStore store(work_);
    const HeapReuse reuse;
    const auto start = std::chrono::steady_clock::now();
    const TrainingResult result = train({.config = stage_.config,
                                         .model = &model,
                                         .objective = objective_.get(),
                                         .data = &texts_->data(),
                                         .held_out = texts_->held_out(),
                                         .domains = texts_->domains(),
                                         .domain_rate = stage_.domain_rate,
                                         .store = &store,
                                         .progress = job_.progress,
                                         .log = job_.log},
                                        *job_.pool);
    const std::chrono::duration<double> taken =
        std::chrono::steady_clock::now() - start;
    write(model, report_of(model, result, taken.count()));
    fs::remove_all(work_);
  }

 private:
  ModelLearning learning() {
    const Architecture arch = read_architecture(*student_);
    ModelLearning learning{.makes = linear_maker(),
                           .learns = parts_that_learn(stage_.learn, arch),
                           .dropout = static_cast<float>(stage_.config.dropout),
                           .attention_dropout = static_cast<float>(
                               stage_.config.attention_dropout)};
    const auto* const tune = std::get_if<TuneStage>(job_.stage);
    if (tune == nullptr) return learning;
    add_adapter({.stage = tune,
                 .base = student_,
                 .arch = &arch,
                 .text = texts_->data().text(),
                 .isa = job_.isa,
                 .pool = job_.pool,
                 .differences = &differences_},
                learning);
    return learning;
  }

  LinearMaker linear_maker() const {
    if (!stage_.aware) return {};
    return grid_linears(*stage_.aware, *job_.plan, read_architecture(*student_),
                        *job_.pool);
  }

  KvFormat kv_format() const {
    return {.type =
                stage_.aware ? kv_type(stage_.aware->kv_cache) : KvType::kF32};
  }

  void make_student() {
    const StudentConfig& config = stage_.student;
    student_ = job_.checkpoint;
    if (config == StudentConfig{}) return;
    const fs::path made = work_ / "student";
    if (!fs::exists(made)) {
      if (config.config.empty()) {
        write_every(config.every, made);
      } else {
        write_random_model({.config = config.config,
                            .source = job_.checkpoint->path(),
                            .output = made,
                            .seed = config.seed});
      }
    }
    own_student_ = open_checkpoint(made);
    student_ = own_student_.get();
  }

  // Every n-th block, the first among them.
  void write_every(std::size_t n, const fs::path& output) const {
    const Architecture arch = read_architecture(*job_.checkpoint);
    PruneStage depth{.position = stage_.position};
    depth.config.method = PruneMethod::kDepth;
    depth.config.heal = false;
    StructuredJob prune{.checkpoint = job_.checkpoint,
                        .arch = &arch,
                        .stage = &depth,
                        .output = output,
                        .isa = job_.isa,
                        .pool = job_.pool,
                        .progress = job_.progress};
    for (std::size_t layer = 0; layer < arch.layers; layer += n) {
      prune.kept_layers.push_back(layer);
    }
    prune_structure(prune);
  }

  void read_data() {
    tokenizer_ = load_model_tokenizer(job_.checkpoint->path());
    texts_.emplace(stage_, *tokenizer_);
  }

  void prepare_teacher() {
    const auto* const distill = std::get_if<DistillStage>(job_.stage);
    if (distill == nullptr) return;
    teacher_.emplace(
        StageTeacherJob{.stage = distill,
                        .base = job_.base,
                        .tokenizer = tokenizer_.get(),
                        .vocabulary = read_architecture(*student_).vocabulary,
                        .data = &texts_->data(),
                        .held_out = texts_->held_out(),
                        .text_sha256 = texts_->sha256(),
                        .held_out_sha256 = texts_->held_out_sha256(),
                        .work = work_ / "teacher",
                        .isa = job_.isa,
                        .pool = job_.pool,
                        .progress = job_.progress});
  }

  void make_objective(const TrainableModel& model) {
    const auto smoothing = static_cast<float>(stage_.config.label_smoothing);
    const auto* const distill = std::get_if<DistillStage>(job_.stage);
    if (!differences_.empty()) {
      objective_ = difference_objective(of_differences(model, smoothing));
      return;
    }
    if (distill == nullptr) {
      objective_ = text_objective(smoothing, job_.isa);
      return;
    }
    objective_ = distill_objective({.config = distill->loss,
                                    .student = &model,
                                    .teacher = &teacher_->teacher(),
                                    .running = teacher_->running(),
                                    .label_smoothing = smoothing,
                                    .stops = stops(model.architecture()),
                                    .isa = job_.isa});
  }

  DifferenceJob of_differences(const TrainableModel& model, float smoothing) {
    const auto& tune = std::get<TuneStage>(*job_.stage);
    return {.linears = differences_,
            .keep = kept_numbers(tune, model.architecture()),
            .penalty = tune.adapter.penalty,
            .steps = wanted_steps(stage_.config, texts_->data()),
            .sequences_per_step =
                stage_.config.batch_size * stage_.config.accumulation,
            .label_smoothing = smoothing,
            .isa = job_.isa};
  }

  static std::vector<TokenId> stops(const Architecture& arch) {
    return {arch.eos_ids.begin(), arch.eos_ids.end()};
  }

  TrainingReport report_of(TrainableModel& model, const TrainingResult& result,
                           double seconds) {
    TrainingReport report{.stage = std::string(stage_name(*job_.stage)),
                          .text_sha256 = texts_->sha256(),
                          .tokens_per_step = stage_.config.batch_size *
                                             stage_.config.accumulation *
                                             stage_.config.sequence_length,
                          .steps = result.steps,
                          .held_out = texts_->has_held_out(),
                          .stopped_early = result.stopped_early,
                          .before = result.before,
                          .after = result.after,
                          .seconds = seconds,
                          .progress = result.progress};
    for (const TrainingDomain& domain : texts_->domains()) {
      report.domains.push_back(domain.name);
      report.reference_losses.push_back(domain.reference_loss);
    }
    for (const Parameter& parameter : model.parameters()) {
      report.parameters += parameter.value.size();
    }
    return report;
  }

  void write(TrainableModel& model, const TrainingReport& report) const {
    const auto* const tune = std::get_if<TuneStage>(job_.stage);
    if (tune != nullptr && job_.adapter_alone) {
      auto files = job_.adapter_alone->files;
      files[kReportFile] = to_json(report);
      return write_adapter(model, *tune, job_.output, std::move(files));
    }
    if (tune == nullptr) {
      return write_trained({.student = student_,
                            .model = &model,
                            .output = job_.output,
                            .files = {{kReportFile, to_json(report)}},
                            .progress = job_.progress});
    }
    const auto merged = overlay(*student_, merged_adapter(model, *tune));
    copy_model(*merged, {.output = job_.output,
                         .files = {{kReportFile, to_json(report)}},
                         .progress = job_.progress,
                         .pool = job_.pool});
  }

  void write_adapter(TrainableModel& model, const TuneStage& tune,
                     const fs::path& output,
                     std::map<std::string, std::string> files) const {
    write_learned_adapter({.stage = &tune,
                           .arch = &model.architecture(),
                           .parameters = model.parameters(),
                           .base_model = job_.checkpoint->path().string(),
                           .files = std::move(files)},
                          output);
  }

  CheckpointEdits merged_adapter(TrainableModel& model,
                                 const TuneStage& tune) const {
    const fs::path adapter = work_ / "adapter";
    write_adapter(model, tune, adapter, {});
    return merge_adapters(*student_, model.architecture(), {{adapter, 1}}, {},
                          *job_.pool)
        .edits;
  }

  const TrainingStageJob& job_;
  const TrainStage& stage_;
  fs::path work_;
  std::unique_ptr<Checkpoint> own_student_{};
  const Checkpoint* student_ = nullptr;
  std::unique_ptr<Tokenizer> tokenizer_{};
  std::optional<StageTexts> texts_{};
  std::optional<StageTeacher> teacher_{};
  std::vector<DifferenceLinear*> differences_{};  // of the model that learns
  std::unique_ptr<Objective> objective_{};
};

}  // namespace

void train_model(const TrainingStageJob& job) { ModelTraining(job).run(); }

TrainingReport read_training_report(const fs::path& output) {
  const fs::path file = output / kReportFile;
  return training_report_from_json(read_file(file), file.string());
}

}  // namespace llmpress
