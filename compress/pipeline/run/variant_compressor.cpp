#include "compress/pipeline/run/variant_compressor.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "compress/core/formatted.h"
#include "compress/core/side_task.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_report.h"
#include "compress/pipeline/reports/sparsity_curve.h"
#include "compress/pipeline/run/auto_precision.h"
#include "compress/pipeline/run/block_compressor.h"
#include "compress/pipeline/run/block_rounding.h"
#include "compress/pipeline/run/end_compressor.h"
#include "compress/pipeline/run/importance_files.h"
#include "compress/pipeline/run/model_assembly.h"
#include "compress/pipeline/run/model_transforms.h"
#include "compress/pipeline/run/plan_needs.h"
#include "compress/pipeline/run/resume_store.h"
#include "compress/pipeline/run/run_fingerprint.h"
#include "compress/pipeline/run/sparsity_allocation.h"
#include "compress/pipeline/run/stage_check.h"
#include "compress/pipeline/run/structured_pruning.h"
#include "compress/pipeline/training/trained_model.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "formats/checkpoints/artifact_writer.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

class VariantCompressor {
 public:
  VariantCompressor(const RunInputs& inputs, const VariantJob& job,
                    const RunOptions& options, ThreadPool& pool)
      : inputs_(inputs),
        job_(job),
        options_(options),
        ranks_(options.ranks),
        pool_(pool),
        plan_(job.plan),
        importance_(job.plan, *inputs.checkpoint),
        store_(ranks_.first_then_others([this] { return open_store(); })),
        model_(transformed_model()) {}

  VariantReport run() {
    report_ = {.name = job_.name,
               .output = job_.output.path.string(),
               .format = job_.output.format,
               .structured = model_.structured(),
               .training = model_.training(),
               .pruning = describe_pruning(plan_),
               .notes = job_.warnings};
    const auto add = [&](std::vector<std::string> notes) {
      report_.notes.insert(report_.notes.end(), notes.begin(), notes.end());
    };
    add(model_.notes());
    add(selection_notes(plan_, model_.architecture()));
    if (plan_.kv_cache() != nullptr) {
      add({describe_kv_scales(*plan_.kv_cache(), model_.architecture())});
    }
    if (!store_.changed().empty()) log(store_.changed_note());
    for (const std::string& note : report_.notes) log(note);
    for (const LayerReport& layer : report_.structured) log_layer(layer);
    compress_blocks();
    ranks_.barrier();
    if (ranks_.is_first()) {
      if (!plan_.recovery().empty()) recover();
      write_artifact();
    } else if (all_write()) {
      help_writing(ranks_, pool_);
    }
    ranks_.barrier();
    if (ranks_.is_first()) store_.remove();
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
            .count();
    return std::move(report_);
  }

 private:
  ResumeStore open_store() const {
    const std::filesystem::path path = resume_path(job_.output.path);
    if (!ranks_.is_first()) return ResumeStore(path);
    return {path, fingerprint_of(inputs_, job_, pool_), options_.resume};
  }

  // What stages write on their way is written by the first rank and read by
  // the others.
  TransformedModel transformed_model() {
    const auto make = [this] {
      return TransformedModel(*inputs_.checkpoint, plan_, pool_,
                              {.calibration = inputs_.calibration,
                               .directory = store_.directory(),
                               .scratch = job_.scratch,
                               .isa = options_.isa,
                               .progress = options_.progress,
                               .log = options_.log});
    };
    const bool writes =
        std::ranges::any_of(plan_.transforms(), [](const Stage* stage) {
          return std::holds_alternative<PruneStage>(*stage) ||
                 training_of(*stage) != nullptr;
        });
    return writes ? ranks_.first_then_others(make) : make();
  }

  // Which blocks an interrupted run left, the same on all ranks.
  std::vector<char> finished_blocks() {
    std::string finished;
    const std::size_t layers = model_.architecture().layers;
    for (std::size_t l = 0; l < layers && ranks_.is_first(); ++l) {
      bool damaged = false;
      finished += store_.has(l, damaged) ? '\1' : '\0';
      if (damaged) {
        log(
            formatted("{} of an interrupted run is not what was written (its "
                      "hashes differ): it is compressed again",
                      model_.architecture().block_name(l)));
      }
    }
    finished = ranks_.broadcast(std::move(finished));
    return {finished.begin(), finished.end()};
  }

  void compress_blocks() {
    const Architecture& arch = model_.architecture();
    const CalibrationUse use = calibration_use_of_blocks(plan_, arch);
    if (use == CalibrationUse::kNeeded && inputs_.calibration == nullptr) {
      fail(ErrorCode::kInvalidArgument,
           "variant '{}' needs calibration, but the recipe has no "
           "'calibration' section",
           job_.name);
    }
    if (use != CalibrationUse::kNone && inputs_.calibration != nullptr) {
      const ModelEnds ends =
          ModelEnds::without_head(model_.checkpoint(), arch, options_.isa);
      states_.emplace(*inputs_.calibration, ends, pool_, job_.scratch, ranks_);
      if (wants_reference(plan_, arch)) reference_ = states_;
    }
    if (wants_sparsity_allocation(plan_)) choose_sparsities();
    if (wants_auto_precision(plan_)) choose_widths();
    finished_ = finished_blocks();
    if (ranks_.is_spread() && !states_) {
      deal_blocks_out();
    } else {
      compress_in_order();
    }
    report(options_.progress, {.phase = "compress " + job_.name,
                               .done = arch.layers,
                               .total = arch.layers});
    if (ranks_.is_first() || states_) compress_both_ends();
  }

  void compress_both_ends() {
    const Architecture& arch = model_.architecture();
    ends_ = compress_ends(
        {.checkpoint = &model_.checkpoint(),
         .arch = &arch,
         .plan = &plan_,
         .isa = options_.isa,
         .pool = &pool_,
         .ranks = ranks_,
         .importance = &importance_,
         .on_layer = [this](const LayerReport& l) { log_layer(l); }},
        streams());
    report_.layers.insert(report_.layers.end(), ends_.layers.begin(),
                          ends_.layers.end());
  }

  void report_block(std::size_t layer) const {
    const Architecture& arch = model_.architecture();
    report(options_.progress, {.phase = "compress " + job_.name,
                               .done = layer,
                               .total = arch.layers,
                               .detail = arch.block_name(layer)});
  }

  void compress_in_order() {
    for (std::size_t layer = 0; layer < finished_.size(); ++layer) {
      report_block(layer);
      if (finished_[layer]) {
        reuse_block(layer);
      } else {
        compress_one_block(layer);
      }
    }
    saving_.wait();
  }

  // Blocks that do not depend on one another, in turn to the ranks.
  void deal_blocks_out() {
    std::size_t unfinished = 0;
    for (std::size_t layer = 0; layer < finished_.size(); ++layer) {
      if (finished_[layer] || !ranks_.owns(unfinished++)) continue;
      report_block(layer);
      compress_one_block(layer);
    }
    saving_.wait();
    ranks_.barrier();
    if (!ranks_.is_first()) return;
    unfinished = 0;
    for (std::size_t layer = 0; layer < finished_.size(); ++layer) {
      const std::vector<LayerReport> layers = store_.layers(layer);
      if (finished_[layer]) {
        log_resumed(layer);
      } else if (!ranks_.owns(unfinished++)) {
        for (const LayerReport& l : layers) log_layer(l);
      }
      keep_reports(layers);
    }
  }

  ModelPass model_pass() {
    return {.checkpoint = &model_.checkpoint(),
            .arch = &model_.architecture(),
            .plan = &plan_,
            .calibration = inputs_.calibration,
            .isa = options_.isa,
            .pool = &pool_,
            .ranks = ranks_,
            .scratch = job_.scratch,
            .progress = options_.progress};
  }

  void keep_notes(const std::vector<std::string>& notes) {
    for (const std::string& note : notes) {
      log(note);
      report_.notes.push_back(note);
    }
  }

  void choose_sparsities() {
    sparsities_ = allocate_sparsities(model_pass());
    keep_notes(sparsities_.notes);
  }

  void choose_widths() {
    AutoPrecision chosen = choose_precision(model_pass());
    keep_notes(chosen.notes);
    plan_.assign(std::move(chosen.stages));
  }

  void reuse_block(std::size_t layer) {
    const CompressedBlock block =
        store_.load(layer, model_.architecture(), model_.checkpoint());
    log_resumed(layer);
    keep_reports(block.layers);
    if (!states_) return;
    pass_block(job_of(layer), block.weights, unread_block(layer), streams());
  }

  void log_resumed(std::size_t layer) const {
    log("resumed " + model_.architecture().block_name(layer) +
        " from an interrupted run");
  }

  void compress_one_block(std::size_t layer) {
    BlockJob job = job_of(layer);
    job.on_layer = [this](const LayerReport& l) { log_layer(l); };
    job.on_note = [this](const std::string& note) { log(note); };
    const LinearStore linears = store_.linears(layer);
    job.linears = &linears;
    CompressedBlock block = compress_block(job, unread_block(layer), streams());
    if (states_ && !ranks_.is_first()) return;
    note_adapters(layer, block);
    if (states_ || !ranks_.is_spread()) keep_reports(block.layers);
    if (states_) return save(block, layer);
    // Rounding alone takes no longer than writing.
    saving_.start([this, layer,
                   saved = std::make_shared<const CompressedBlock>(
                       std::move(block))] { save(*saved, layer); });
  }

  void save(const CompressedBlock& block, std::size_t layer) {
    store_.save(block, layer, model_.architecture(),
                model_.checkpoint().config_json());
  }

  // What rounding left of merged adapters, where nothing else changed the
  // weights in between.
  void note_adapters(std::size_t layer, CompressedBlock& block) const {
    const auto transforms = plan_.transforms();
    const bool merges_alone =
        !transforms.empty() && plan_.smoothing().empty() &&
        std::ranges::all_of(transforms, [](const Stage* stage) {
          return std::holds_alternative<MergeLoraStage>(*stage);
        });
    if (!merges_alone || plan_.quantizing().empty()) return;
    for (std::size_t l = 0; l < block.layers.size(); ++l) {
      const auto decoded = [&](const Checkpoint& checkpoint) {
        return dequantize(
            read_block_linear(checkpoint, model_.architecture(), layer, l)
                .weight);
      };
      const auto note =
          describe_survival(decoded(*inputs_.checkpoint).view(),
                            decoded(model_.checkpoint()).view(),
                            dequantize(block.weights.linears[l].weight).view());
      if (note) block.layers[l].notes.push_back(*note);
    }
  }

  BlockJob job_of(std::size_t layer) const {
    return {.arch = &model_.architecture(),
            .plan = &plan_,
            .source = &model_.checkpoint(),
            .layer = layer,
            .isa = options_.isa,
            .pool = &pool_,
            .importance = &importance_,
            .ranks = states_ ? ranks_ : Ranks{},
            .experts = inputs_.calibration == nullptr
                           ? ExpertPolicy::kNearest
                           : inputs_.calibration->experts,
            .expert_min_tokens = inputs_.calibration == nullptr
                                     ? 0
                                     : inputs_.calibration->expert_min_tokens,
            .kept = kept(),
            .sparsities = sparsities_.of_block(layer)};
  }

  KeptInputs kept() const {
    if (!states_) return {};
    return kept_inputs(
        job_, share_of_rank(size_of(*inputs_.calibration), ranks_.size()),
        reference_.has_value());
  }

  DenseBlock unread_block(std::size_t layer) const {
    return load_unread_block(model_.checkpoint(), model_.architecture(), layer);
  }

  CalibrationStreams streams() {
    return {.compressed = states_ ? &*states_ : nullptr,
            .reference = reference_ ? &*reference_ : nullptr};
  }

  // The model as it was compressed, block by block.
  ModelParts compressed_parts() const {
    const Architecture& arch = model_.architecture();
    return {
        .source = &model_.checkpoint(),
        .arch = &arch,
        .block =
            [this, &arch](std::size_t layer) {
              return store_.load_rest(layer, arch, model_.checkpoint());
            },
        .written = [this](std::size_t layer) { return store_.stored(layer); },
        .ends = ends_.linears,
        .experts_apart = experts_apart()};
  }

  std::string artifact_config() const {
    std::string config = model_.checkpoint().config_json();
    if (plan_.kv_cache() != nullptr) {
      config = with_kv_cache_scheme(config, *plan_.kv_cache());
    }
    return ends_.unties_head ? with_flag(config, "tie_word_embeddings", false)
                             : config;
  }

  ModuleNames modules() const {
    return module_names(model_.checkpoint(), model_.architecture());
  }

  // Trains what the blocks became, from a checkpoint of it.
  void recover() {
    const std::filesystem::path rounded = store_.directory() / "rounded";
    if (!std::filesystem::exists(rounded)) {
      const auto writer =
          make_artifact_writer({.output = rounded,
                                .source = model_.checkpoint().path(),
                                .modules = modules()});
      add_model(*writer, compressed_parts());
      writer->finish(artifact_config());
    }
    recovered_ = open_checkpoint(rounded);
    for (const Stage* stage : plan_.recovery()) recover(*stage);
    recovered_arch_ = read_architecture(*recovered_);
  }

  void recover(const Stage& stage) {
    const std::filesystem::path output =
        store_.directory() / formatted("recovered-{}", report_.training.size());
    if (!std::filesystem::exists(output)) {
      train_model({.checkpoint = recovered_.get(),
                   .base = inputs_.checkpoint,
                   .stage = &stage,
                   .plan = &plan_,
                   .output = output,
                   .isa = options_.isa,
                   .pool = &pool_,
                   .progress = options_.progress,
                   .log = options_.log});
    }
    report_.training.push_back(read_training_report(output));
    keep_notes(describe(report_.training.back()));
    recovered_ = open_checkpoint(output);
  }

  ModelParts recovered_parts() const {
    return {.source = recovered_.get(),
            .arch = &*recovered_arch_,
            .block =
                [this](std::size_t layer) {
                  return stored_block(*recovered_, *recovered_arch_, layer);
                },
            .experts_apart = experts_apart()};
  }

  // Shards whose tensors lie in files that all ranks see.
  bool all_write() const {
    return job_.output.format == "compressed-tensors" &&
           plan_.recovery().empty();
  }

  void write_artifact() {
    const auto writer =
        make_artifact_writer({.output = job_.output.path,
                              .format = job_.output.format,
                              .max_shard_bytes = job_.output.max_shard_size,
                              .source = model_.checkpoint().path(),
                              .modules = modules(),
                              .pool = &pool_,
                              .ranks = all_write() ? ranks_ : Ranks{}});
    ModelParts parts = recovered_ ? recovered_parts() : compressed_parts();
    parts.mxfp4_stacks = job_.output.format == kMxfp4Format;
    parts.progress = options_.progress;
    parts.phase = "write " + job_.name;
    add_model(*writer, parts);
    writer->add_file("recipe.yaml", inputs_.recipe_yaml);
    writer->add_file("llmpress.json", provenance_of(inputs_, job_.name));
    writer->finish(artifact_config());
  }

  // Where transformers has stacks only while nothing is quantized.
  bool experts_apart() const {
    if (job_.output.format == "gguf") return true;  // has stacks of its own
    return model_.architecture().hf_class.experts == ExpertModules::kLinears &&
           job_.output.format == "compressed-tensors" &&
           !plan_.quantizing().empty();
  }

  void keep_reports(const std::vector<LayerReport>& layers) {
    for (const LayerReport& l : layers) {
      report_.linear_nonzeros +=
          static_cast<double>(l.out * l.in) * (1 - l.sparsity);
    }
    report_.layers.insert(report_.layers.end(), layers.begin(), layers.end());
  }

  void log(const std::string& line) const {
    if (options_.log) options_.log(line);
  }

  void log_layer(const LayerReport& layer) const {
    log(layer_line(layer));
    for (const std::string& note : layer.notes) log(layer.name + ": " + note);
  }

  const std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
  const RunInputs& inputs_;
  const VariantJob& job_;
  const RunOptions& options_;
  const Ranks ranks_;
  ThreadPool& pool_;
  StagePlan plan_;
  ImportanceFiles importance_;
  ResumeStore store_;
  TransformedModel model_;
  std::optional<CalibrationStates> states_, reference_;
  SparsityAllocations sparsities_;
  std::vector<char> finished_{};  // [blocks] an interrupted run left it
  CompressedEnds ends_;
  // What training made of it, if it followed.
  std::unique_ptr<Checkpoint> recovered_{};
  std::optional<Architecture> recovered_arch_{};
  VariantReport report_;
  SideTask saving_;  // of the block before
};

}  // namespace

std::string layer_line(const LayerReport& layer) {
  return formatted("{}  {}  {}  relative error {:.3g}", layer.name,
                   layer.method, layer.format, layer.relative_error);
}

KeptInputs kept_inputs(const VariantJob& job, CalibrationSize of_rank,
                       bool reference) {
  return job.scratch.empty() ? KeptInputs(of_rank.tokens * (reference ? 2 : 1))
                             : KeptInputs();
}

VariantReport compress_variant(const RunInputs& inputs, const VariantJob& job,
                               const RunOptions& options, ThreadPool& pool) {
  return VariantCompressor(inputs, job, options, pool).run();
}

}  // namespace llmpress
