#include "compress/pipeline/run/structured_pruning.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/reports/layer_report_json.h"
#include "compress/pipeline/run/block_writer.h"
#include "compress/pipeline/run/resume_store.h"
#include "compress/pipeline/run/structured_healing.h"
#include "compress/pipeline/run/structured_progress.h"
#include "compress/pipeline/training/learned_weights.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "compress/surgery/learned_masks.h"
#include "compress/surgery/loss_gradients.h"
#include "compress/surgery/structured_depth.h"
#include "compress/surgery/structured_ends.h"
#include "compress/surgery/structured_experts.h"
#include "compress/surgery/structured_hidden.h"
#include "compress/surgery/structured_reduction.h"
#include "compress/surgery/structured_shape.h"
#include "compress/surgery/unit_measures.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

constexpr const char* kReportFile = "structured.json";

double squared_distance(const MatrixF& A, const MatrixF& B) {
  double sum = 0;
  for (std::size_t i = 0; i < A.size(); ++i) {
    const double d =
        static_cast<double>(A.data()[i]) - static_cast<double>(B.data()[i]);
    sum += d * d;
  }
  return sum;
}

class StructuredPruner {
 public:
  explicit StructuredPruner(const StructuredJob& job)
      : job_(job),
        arch_(*job.arch),
        config_(job.stage->config),
        count_(unit_count(arch_, config_)),
        layers_(arch_.layers) {
    std::iota(layers_.begin(), layers_.end(), std::size_t{0});
    if (!job.progress_directory.empty()) {
      progress_.emplace(job.progress_directory);
    }
  }

  void run() {
    choose();
    const std::string config =
        pruned_config(job_.checkpoint->config_json(), arch_, config_, layers_);
    reduced_arch_ = parse_architecture(config, job_.output.string());
    use_places_of(arch_, reduced_arch_);
    reduced_config_ = config;
    start_states();
    const auto writer =
        make_artifact_writer({.output = job_.output,
                              .format = "safetensors",
                              .source = job_.checkpoint->path()});
    for (std::size_t p = 0; p < layers_.size(); ++p) {
      report(job_.progress, {.phase = phase(),
                             .done = p,
                             .total = layers_.size(),
                             .detail = arch_.block_name(layers_[p])});
      write_block(p, *writer);
    }
    report(job_.progress,
           {.phase = phase(), .done = layers_.size(), .total = layers_.size()});
    write_ends({.checkpoint = source_,
                .arch = &arch_,
                .layers = layers_,
                .channels = hidden_.kept,
                .final_gain_scale = hidden_.final_gain,
                .head = fitted_head(),
                .changed = changed_},
               *writer);
    writer->add_file(kReportFile, layers_to_json(reports_));
    writer->finish(config);
    if (progress_) progress_->remove();
  }

 private:
  // What is decided for the whole model before the first block is cut.
  void choose() {
    if (progress_) {
      if (auto chosen = progress_->choices()) {
        // Which are where they were left.
        if (config_.learns_weights()) learn_masks();
        return take(std::move(*chosen));
      }
    }
    if (ranks_by_gradients()) {
      gradients_.emplace(*job_.checkpoint, calibration(), job_.isa, *job_.pool,
                         job_.progress);
    }
    if (config_.learns_masks()) learn_masks();
    StructuredChoices choices{.depth = {.kept = layers_}};
    if (config_.method == PruneMethod::kDepth) choices.depth = choose_layers();
    if (config_.method == PruneMethod::kHidden) {
      choices.hidden = choose_channels();
    }
    for (std::size_t layer = 0; scores_blocks() && layer < arch_.layers;
         ++layer) {
      choices.scores.push_back(score(layer));
    }
    gradients_.reset();  // the model in float32, twice
    if (progress_) progress_->save(choices);
    take(std::move(choices));
  }

  void take(StructuredChoices choices) {
    layers_ = std::move(choices.depth.kept);
    for (const RemovedBlock& removed : choices.depth.removed) {
      reports_.push_back({.name = arch_.block_name(removed.layer),
                          .method = "removed",
                          .format = "-",
                          .notes = {removed.reason}});
    }
    hidden_ = std::move(choices.hidden);
    scores_ = std::move(choices.scores);
  }

  // Whether units of blocks rank by what the whole model's loss says.
  bool scores_blocks() const {
    return (gradients_ || masks_) && (config_.method == PruneMethod::kFfn ||
                                      config_.method == PruneMethod::kHeads);
  }

  std::vector<double> score(std::size_t layer) const {
    if (masks_) return masks_->of_block(layer);
    const BlockSpec& block = arch_.block(layer);
    return gradients_->unit_importance(config_.method == PruneMethod::kFfn
                                           ? ffn_units(block)
                                           : head_units(block),
                                       layer);
  }

  // Where weights learn along they are what is cut from now on.
  void learn_masks() {
    const bool chosen = !job_.kept_layers.empty() || count_.kept == count_.of;
    if (config_.method == PruneMethod::kDepth && chosen) return;
    UnitChoiceJob choice = choice_job(&calibration());
    if (progress_) choice.store = &progress_->masks();
    masks_.emplace(choice, count_.kept);
    if (masks_->weights().empty()) return;
    learned_ =
        overlay(*job_.checkpoint, learned_weights(arch_, masks_->weights()));
    source_ = learned_.get();
  }

  bool ranks_by_gradients() const {
    const PruneMethod method = config_.method;
    return config_.importance == Importance::kGradients &&
           (method == PruneMethod::kFfn || method == PruneMethod::kHeads ||
            method == PruneMethod::kHidden);
  }

  std::string phase() const {
    return formatted("prune {}", unit_name(config_.method));
  }

  std::string unit() const {
    return formatted("{} of {} {}", count_.kept, count_.of,
                     unit_name(config_.method));
  }

  const CalibrationSet& calibration() const {
    if (job_.calibration != nullptr) return *job_.calibration;
    fail(ErrorCode::kInvalidArgument,
         "{}: this needs calibration, but the recipe has no 'calibration' "
         "section",
         job_.stage->position.to_string());
  }

  CalibrationStates embedded(const Checkpoint& checkpoint) const {
    return CalibrationStates(
        calibration(), ModelEnds::without_head(checkpoint, arch_, job_.isa),
        *job_.pool, job_.scratch);
  }

  UnitChoiceJob choice_job(const CalibrationSet* calibration) const {
    return {.checkpoint = source_,
            .arch = &arch_,
            .config = &config_,
            .calibration = calibration,
            .isa = job_.isa,
            .pool = job_.pool,
            .progress = job_.progress};
  }

  DepthChoice choose_layers() {
    if (!job_.kept_layers.empty()) return {.kept = job_.kept_layers};
    if (count_.kept == count_.of) return {.kept = layers_};
    return choose_depth(choice_job(&calibration()), count_.kept,
                        learned_ranks());
  }

  std::vector<double> learned_ranks() const {
    if (masks_) return masks_->of_model();
    return gradients_ ? gradients_->hidden_importance() : std::vector<double>();
  }

  HiddenChoice choose_channels() {
    std::optional<CalibrationStates> states;
    if (job_.calibration != nullptr) states = embedded(*source_);
    if (config_.importance == Importance::kActivations) (void)calibration();
    return choose_hidden(choice_job(job_.calibration), count_.kept,
                         states ? &*states : nullptr, learned_ranks());
  }

  // Calibration that the recipe has is used to measure errors even where
  // nothing needs it.
  void start_states() {
    const bool chosen = !job_.kept_layers.empty();  // nothing to measure
    if (!chosen && needs_calibration(config_)) (void)calibration();
    if (job_.calibration == nullptr) return;
    states_.emplace(
        PairedStates{embedded(*job_.checkpoint), embedded(*source_)});
    if (hidden_.kept.empty()) return;
    for (CalibrationBatch& batch : states_->reduced.batches()) {
      batch.state.hidden =
          select_columns(batch.state.hidden.view(), hidden_.kept);
    }
  }

  void write_block(std::size_t p, ArtifactWriter& writer) {
    const std::size_t layer = layers_[p];
    if (p == 0 && states_) skip_blocks(0, layer, states_->dense);
    const auto load = [&](const Checkpoint& checkpoint) {
      return ready_to_cut(
          load_dense_block(checkpoint, arch_, layer, *job_.pool), arch_, layer);
    };
    const DenseBlock dense = load(*job_.checkpoint);
    DenseBlock reduced;
    if (progress_ && states_ && progress_->has(p)) {
      reduced = take_up(p, dense);
    } else {
      reduced = learned_ ? load(*source_) : dense;
      const std::size_t reported = reports_.size();
      work_on(p, dense, reduced);
      // Parameters that are cut stand in no file of the progress.
      if (progress_ && states_ && reduced.parameters == dense.parameters) {
        progress_->save(
            p, reduced_arch_, reduced_config_, reduced,
            {reports_.begin() + static_cast<std::ptrdiff_t>(reported),
             reports_.end()});
      }
    }
    CompressedBlock written;
    written.weights.norms = reduced.norms;
    written.norm_dtypes = reduced.norm_dtypes;
    for (std::size_t l = 0; l < reduced.linears.size(); ++l) {
      try {
        written.weights.linears.push_back(kept_form(reduced.linears[l]));
      } catch (const Error& e) {
        fail(e.code(), "{}: {}", arch_.linear_name(layer, l), e.what());
      }
    }
    add_block(writer, written, p, reduced_arch_,
              {.checkpoint = source_, .block = arch_.block_name(layer)});
    write_changed_parameters(p, dense, reduced, writer);
  }

  void work_on(std::size_t p, const DenseBlock& dense, DenseBlock& reduced) {
    const std::vector<std::string> notes = reduce(layers_[p], dense, reduced);
    if (config_.method == PruneMethod::kExperts) {
      measure(p, dense, reduced, notes);
    } else if (states_) {
      heal(p, dense, reduced, notes);
    }
  }

  // A block that was worked on before; both models go on behind it.
  DenseBlock take_up(std::size_t p, const DenseBlock& dense) {
    auto [reduced, reports] =
        progress_->load(p, reduced_arch_, dense, *job_.pool);
    reports_.insert(reports_.end(), reports.begin(), reports.end());
    const std::size_t layer = layers_[p];
    states_->dense.run(runner_of(arch_, layer, dense, {.isa = job_.isa}),
                       *job_.pool);
    skip_blocks(layer + 1, next_layer(p), states_->dense);
    states_->reduced.run(
        runner_of(reduced_arch_, p, reduced, {.isa = job_.isa}), *job_.pool);
    return std::move(reduced);
  }

  // The one that stays behind the p-th that stays.
  std::size_t next_layer(std::size_t p) const {
    return p + 1 < layers_.size() ? layers_[p + 1] : arch_.layers;
  }

  // Others are copied with what stands outside the blocks.
  void write_changed_parameters(std::size_t p, const DenseBlock& dense,
                                const DenseBlock& reduced,
                                ArtifactWriter& writer) {
    const std::size_t layer = layers_[p];
    const auto& parameters = arch_.block(layer).parameters;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const std::vector<float>& values = reduced.parameters[i];
      if (values.size() == dense.parameters[i].size()) continue;
      changed_.push_back(arch_.block_name(layer) + "." + parameters[i].name);
      const TensorInfo& info =
          job_.checkpoint->tensors().require(changed_.back());
      writer.add_tensor(rounded_tensor(
          reduced_arch_.block_name(p) + "." + parameters[i].name, info.dtype,
          reduced_arch_.block(p).parameters[i].shape, values));
    }
  }

  void heal(std::size_t p, const DenseBlock& dense, DenseBlock& reduced,
            const std::vector<std::string>& notes) {
    const std::size_t next = next_layer(p);
    auto reports = heal_block({.dense_arch = &arch_,
                               .reduced_arch = &reduced_arch_,
                               .dense_layer = layers_[p],
                               .reduced_layer = p,
                               .config = &config_,
                               .channels = hidden_.kept,
                               .skip =
                                   [&](CalibrationStates& states) {
                                     skip_blocks(layers_[p] + 1, next, states);
                                   },
                               .unit = unit(),
                               .isa = job_.isa,
                               .pool = job_.pool},
                              dense, reduced, *states_);
    reports.front().notes.insert(reports.front().notes.end(), notes.begin(),
                                 notes.end());
    reports_.insert(reports_.end(), reports.begin(), reports.end());
  }

  // Both models go on behind the block. A row of the report for one that lost
  // experts, named by its router.
  void measure(std::size_t p, const DenseBlock& dense,
               const DenseBlock& reduced,
               const std::vector<std::string>& notes) {
    const std::size_t layer = layers_[p];
    const Block dense_block = runner_of(arch_, layer, dense, {.isa = job_.isa});
    const Block reduced_block =
        runner_of(reduced_arch_, p, reduced, {.isa = job_.isa});
    double added = 0, squared = 0;
    for (std::size_t b = 0; b < states_->dense.batches().size(); ++b) {
      CalibrationBatch& was = states_->dense.batches()[b];
      CalibrationBatch& is = states_->reduced.batches()[b];
      const MatrixF before = was.state.hidden;
      dense_block.run(was.segments, was.state, *job_.pool);
      reduced_block.run(is.segments, is.state, *job_.pool);
      added += squared_distance(was.state.hidden, before);
      squared += squared_distance(was.state.hidden, is.state.hidden);
    }
    const auto units = expert_units(reduced_arch_.block(p));
    if (!units) return;
    const MatrixF& router = reduced.linears[units->router].W;
    reports_.push_back(
        {.name = reduced_arch_.linear_name(p, units->router),
         .method = "cut",
         .format = unit(),
         .out = router.rows(),
         .in = router.cols(),
         .output_error = squared / static_cast<double>(states_->dense.tokens() *
                                                       arch_.hidden),
         .relative_error = added > 0 ? squared / added : 0.0,
         .calibrated = true,
         .calibration_tokens = states_->dense.tokens(),
         .notes = notes});
  }

  void skip_blocks(std::size_t begin, std::size_t end,
                   CalibrationStates& states) const {
    for (std::size_t layer = begin; layer < end; ++layer) {
      states.run(Block(arch_, layer, read_block(*job_.checkpoint, arch_, layer),
                       job_.isa),
                 *job_.pool);
    }
  }

  // Takes units out of one block; notes for its report.
  std::vector<std::string> reduce(std::size_t layer, const DenseBlock& dense,
                                  DenseBlock& reduced) {
    switch (config_.method) {
      case PruneMethod::kFfn:
        keep_units(ffn_units(arch_.block(layer)),
                   keep_most_important(
                       scores_.empty() ? ffn_importance(measuring(layer, dense))
                                       : scores_[layer],
                       count_.kept),
                   reduced);
        return {};
      case PruneMethod::kHeads:
        keep_units(
            head_units(arch_.block(layer)),
            keep_most_important(scores_.empty()
                                    ? head_importance(measuring(layer, dense))
                                    : scores_[layer],
                                count_.kept),
            reduced);
        return {};
      case PruneMethod::kHidden:
        keep_hidden_channels(arch_.block(layer), hidden_.kept,
                             hidden_.gains[layer], reduced);
        return {};
      case PruneMethod::kKvHeads:
        return merge(layer, dense, reduced);
      case PruneMethod::kExperts:
        return remove_experts(layer, dense, reduced);
      case PruneMethod::kDepth:
      case PruneMethod::kMagnitude:
      case PruneMethod::kWanda:
      case PruneMethod::kSparseGpt:
        break;
    }
    return {};
  }

  std::vector<std::string> remove_experts(std::size_t layer,
                                          const DenseBlock& dense,
                                          DenseBlock& reduced) const {
    const auto units = expert_units(arch_.block(layer));
    if (!units) return {};
    const ExpertChoice choice =
        choose_experts({.arch = &arch_,
                        .layer = layer,
                        .importance = config_.expert_importance,
                        .kept = count_.kept,
                        .isa = job_.isa,
                        .pool = job_.pool},
                       dense, states_->reduced);
    keep_experts(*units, choice.kept, reduced);
    std::vector<std::string> notes;
    for (const RemovedExpert& removed : choice.removed) {
      notes.push_back(formatted(
          "without expert {}: {} {}, {}% of the mass", removed.expert,
          name_of(config_.expert_importance), scientific(removed.importance),
          fixed(100 * removed.mass_share, 2)));
    }
    return notes;
  }

  UnitMeasureJob measuring(std::size_t layer, const DenseBlock& dense) const {
    return {.arch = &arch_,
            .layer = layer,
            .dense = &dense,
            .importance = config_.importance,
            .states = states_ ? &states_->reduced : nullptr,
            .isa = job_.isa,
            .pool = job_.pool};
  }

  std::vector<std::string> merge(std::size_t layer, const DenseBlock& dense,
                                 DenseBlock& reduced) const {
    MatrixF S;
    if (config_.kv_grouping == KvGrouping::kCalibrated) {
      S = query_input_moment(measuring(layer, dense));
    }
    const MergeLoss loss = merge_heads(arch_.block(layer), count_.kept,
                                       S.view(), *job_.pool, reduced);
    if (S.empty()) return {};
    return {"merged heads carry all but " + scientific(loss.keys) +
            " of the keys' and " + scientific(loss.values) +
            " of the values' energy"};
  }

  std::optional<MatrixF> fitted_head() {
    if (hidden_.kept.empty() || !states_ || !config_.heal || arch_.tied_head) {
      return std::nullopt;
    }
    return heal_head({.checkpoint = job_.checkpoint,
                      .arch = &arch_,
                      .config = &config_,
                      .channels = hidden_.kept,
                      .final_gain = hidden_.final_gain,
                      .pool = job_.pool},
                     *states_);
  }

  const StructuredJob& job_;
  const Architecture& arch_;
  const PruneConfig& config_;
  UnitCount count_;
  std::optional<StructuredProgress> progress_{};
  std::vector<std::size_t> layers_;  // that stay
  std::optional<LossGradients> gradients_{};
  std::optional<LearnedMasks> masks_{};
  std::unique_ptr<Checkpoint> learned_{};       // null: weights did not learn
  const Checkpoint* source_ = job_.checkpoint;  // what is cut
  HiddenChoice hidden_;  // empty: the stream keeps its channels
  std::vector<std::vector<double>> scores_{};  // StructuredChoices::scores
  Architecture reduced_arch_;
  std::string reduced_config_{};  // config.json of the result
  std::optional<PairedStates> states_;
  std::vector<std::string> changed_;  // tensors of the blocks, see write_ends()
  std::vector<LayerReport> reports_;
};

}  // namespace

void prune_structure(const StructuredJob& job) {
  check_structured(*job.arch, *job.stage);
  StructuredPruner(job).run();
}

std::vector<LayerReport> read_structured_report(
    const std::filesystem::path& output) {
  const std::filesystem::path file = output / kReportFile;
  return layers_from_json(read_file(file), file.string());
}

}  // namespace llmpress
