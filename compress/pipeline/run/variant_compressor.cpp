#include "compress/pipeline/run/variant_compressor.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/model/model_check.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_report.h"
#include "compress/pipeline/reports/sparsity_curve.h"
#include "compress/pipeline/run/auto_precision.h"
#include "compress/pipeline/run/block_compressor.h"
#include "compress/pipeline/run/block_rounding.h"
#include "compress/pipeline/run/block_writer.h"
#include "compress/pipeline/run/end_compressor.h"
#include "compress/pipeline/run/model_transforms.h"
#include "compress/pipeline/run/resume_store.h"
#include "compress/pipeline/run/sparsity_allocation.h"
#include "compress/pipeline/run/stage_check.h"
#include "compress/pipeline/run/structured_pruning.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "formats/checkpoints/artifact_writer.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

// Names of tensors that the blocks account for.
bool belongs_to_block(const std::string& tensor, const Architecture& arch) {
  const auto layer = layer_of(tensor, arch);
  return layer &&
         written_with_block(arch.block(*layer),
                            tensor.substr(arch.block_name(*layer).size() + 1));
}

// Embedding, head, final norm and whatever else stands outside the Linears of
// the blocks goes through byte for byte.
void copy_other_tensors(const TransformedModel& model,
                        const CompressedEnds& ends, ArtifactWriter& writer) {
  const TensorReader& reader = model.checkpoint().tensors();
  const auto compressed = [&](const std::string& tensor) {
    return std::ranges::any_of(ends.linears, [&](const auto& end) {
      return tensor.starts_with(end.first + ".");
    });
  };
  for (const TensorInfo& info : reader.tensors()) {
    if (belongs_to_block(info.name, model.architecture()) ||
        compressed(info.name)) {
      continue;
    }
    const TensorBytes data = reader.read(info);
    writer.add_tensor({.name = info.name,
                       .dtype = info.dtype,
                       .shape = info.shape,
                       .bytes = {data.bytes.begin(), data.bytes.end()}});
  }
}

// Hashes of what a training stage reads beside the model.
std::string files_of(const TrainStage& train, const Stage& stage) {
  std::string text = sha256_of_file(train.text);
  if (!train.held_out.empty()) text += sha256_of_file(train.held_out);
  if (!train.student.config.empty()) {
    text += sha256_of_file(train.student.config);
  }
  const auto* const distill = std::get_if<DistillStage>(&stage);
  if (distill != nullptr && !distill->teacher.empty()) {
    text += model_sha256(*open_checkpoint(distill->teacher));
  }
  return text;
}

}  // namespace

std::string fingerprint_of(const RunInputs& inputs, const VariantJob& job) {
  std::string text =
      formatted("llmpress {}\n{}\n{}\n{}\n{}\n", LLMPRESS_VERSION, job.name,
                inputs.model_sha256, inputs.recipe_yaml, inputs.kernels);
  if (inputs.calibration != nullptr) text += inputs.calibration->sha256;
  for (const Stage* stage : job.plan.transforms()) {
    if (const TrainStage* const train = training_of(*stage)) {
      text += files_of(*train, *stage);
      continue;
    }
    const auto* merge = std::get_if<MergeLoraStage>(stage);
    if (merge == nullptr) continue;
    for (const auto& file :
         std::filesystem::directory_iterator(merge->adapter)) {
      if (file.is_regular_file()) text += sha256_of_file(file.path());
    }
  }
  return sha256_hex(text) + "\n";
}

namespace {

class VariantCompressor {
 public:
  VariantCompressor(const RunInputs& inputs, const VariantJob& job,
                    const RunOptions& options, ThreadPool& pool)
      : inputs_(inputs),
        job_(job),
        options_(options),
        pool_(pool),
        plan_(job.plan),
        store_(resume_path(job.output.path), fingerprint_of(inputs, job),
               options.resume),
        model_(*inputs.checkpoint, plan_, pool,
               {.calibration = inputs.calibration,
                .directory = store_.directory(),
                .isa = options.isa,
                .progress = options.progress,
                .log = options.log}) {}

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
    for (const std::string& note : report_.notes) log(note);
    for (const LayerReport& layer : report_.structured) log_layer(layer);
    compress_blocks();
    write_artifact();
    store_.remove();
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
            .count();
    return std::move(report_);
  }

 private:
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
      const ModelEnds ends(model_.checkpoint(), arch, options_.isa);
      states_.emplace(*inputs_.calibration, ends, pool_);
      if (wants_reference(plan_, arch)) reference_ = states_;
    }
    if (wants_sparsity_allocation(plan_)) choose_sparsities();
    if (wants_auto_precision(plan_)) choose_widths();
    for (std::size_t layer = 0; layer < arch.layers; ++layer) {
      report(options_.progress, {.phase = "compress " + job_.name,
                                 .done = layer,
                                 .total = arch.layers,
                                 .detail = arch.block_name(layer)});
      if (store_.has(layer)) {
        reuse_block(layer);
      } else {
        compress_one_block(layer);
      }
    }
    report(options_.progress, {.phase = "compress " + job_.name,
                               .done = arch.layers,
                               .total = arch.layers});
    ends_ = compress_ends(
        {.checkpoint = &model_.checkpoint(),
         .arch = &arch,
         .plan = &plan_,
         .isa = options_.isa,
         .pool = &pool_,
         .on_layer = [this](const LayerReport& l) { log_layer(l); }},
        streams());
    report_.layers.insert(report_.layers.end(), ends_.layers.begin(),
                          ends_.layers.end());
  }

  ModelPass model_pass() {
    return {.checkpoint = &model_.checkpoint(),
            .arch = &model_.architecture(),
            .plan = &plan_,
            .calibration = inputs_.calibration,
            .isa = options_.isa,
            .pool = &pool_,
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
    log("resumed " + model_.architecture().block_name(layer) +
        " from an interrupted run");
    keep_reports(block);
    if (!states_) return;
    pass_block(job_of(layer), block.weights, unread_block(layer), streams());
  }

  void compress_one_block(std::size_t layer) {
    BlockJob job = job_of(layer);
    job.on_layer = [this](const LayerReport& l) { log_layer(l); };
    job.on_note = [this](const std::string& note) { log(note); };
    CompressedBlock block = compress_block(job, unread_block(layer), streams());
    note_adapters(layer, block);
    store_.save(block, layer, model_.architecture(),
                model_.checkpoint().config_json());
    keep_reports(block);
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
            .experts = inputs_.calibration == nullptr
                           ? ExpertPolicy::kNearest
                           : inputs_.calibration->experts,
            .expert_min_tokens = inputs_.calibration == nullptr
                                     ? 0
                                     : inputs_.calibration->expert_min_tokens,
            .sparsities = sparsities_.of_block(layer)};
  }

  DenseBlock unread_block(std::size_t layer) const {
    return load_unread_block(model_.checkpoint(), model_.architecture(), layer);
  }

  CalibrationStreams streams() {
    return {.compressed = states_ ? &*states_ : nullptr,
            .reference = reference_ ? &*reference_ : nullptr};
  }

  void write_artifact() {
    const Architecture& arch = model_.architecture();
    const auto writer = make_artifact_writer(
        {.output = job_.output.path,
         .format = job_.output.format,
         .max_shard_bytes = job_.output.max_shard_size,
         .source = model_.checkpoint().path(),
         .modules = module_names(model_.checkpoint(), arch)});
    for (std::size_t layer = 0; layer < arch.layers; ++layer) {
      add_block(*writer, store_.load(layer, arch, model_.checkpoint()), layer,
                arch,
                {.checkpoint = &model_.checkpoint(),
                 .block = arch.block_name(layer),
                 .experts_apart = experts_apart()});
      report(options_.progress, {.phase = "write " + job_.name,
                                 .done = layer + 1,
                                 .total = arch.layers});
    }
    keep_packed_ends();
    for (const auto& [name, linear] : ends_.linears) {
      writer->add_linear(name, linear);
    }
    copy_other_tensors(model_, ends_, *writer);
    writer->add_file("recipe.yaml", inputs_.recipe_yaml);
    writer->add_file("llmpress.json", provenance_of(inputs_, job_.name));
    std::string config = model_.checkpoint().config_json();
    if (plan_.kv_cache() != nullptr) {
      config = with_kv_cache_scheme(config, *plan_.kv_cache());
    }
    writer->finish(ends_.unties_head
                       ? with_flag(config, "tie_word_embeddings", false)
                       : config);
  }

  // Where transformers has stacks only while nothing is quantized.
  bool experts_apart() const {
    return model_.architecture().hf_class.experts == ExpertModules::kLinears &&
           job_.output.format == "compressed-tensors" &&
           !plan_.quantizing().empty();
  }

  // An embedding or head that was packed before the run keeps its codes.
  void keep_packed_ends() {
    const Checkpoint& checkpoint = model_.checkpoint();
    for (const std::string& name :
         {model_.architecture().embedding, model_.architecture().head}) {
      if (ends_.linears.contains(name) || !checkpoint.has_linear(name) ||
          dense_matrix(checkpoint, name) != nullptr) {
        continue;
      }
      ends_.linears[name] = checkpoint.read_linear(name);
    }
  }

  void keep_reports(const CompressedBlock& block) {
    for (const LayerReport& l : block.layers) {
      report_.linear_nonzeros +=
          static_cast<double>(l.out * l.in) * (1 - l.sparsity);
    }
    report_.layers.insert(report_.layers.end(), block.layers.begin(),
                          block.layers.end());
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
  ThreadPool& pool_;
  StagePlan plan_;
  ResumeStore store_;
  TransformedModel model_;
  std::optional<CalibrationStates> states_, reference_;
  SparsityAllocations sparsities_;
  CompressedEnds ends_;
  VariantReport report_;
};

}  // namespace

std::string provenance_of(const RunInputs& inputs, const std::string& variant) {
  nlohmann::ordered_json json{{"llmpress_version", LLMPRESS_VERSION},
                              {"variant", variant},
                              {"model_sha256", inputs.model_sha256},
                              {"tokenizer_sha256", inputs.tokenizer_sha256}};
  if (inputs.calibration != nullptr) {
    json["calibration"] = {{"token_sha256", inputs.calibration->sha256},
                           {"sequences", inputs.calibration->sequences.size()},
                           {"tokens", inputs.calibration->tokens()}};
  }
  json["recipe"] = "recipe.yaml";
  return json.dump(2) + "\n";
}

std::string layer_line(const LayerReport& layer) {
  return formatted("{}  {}  {}  relative error {:.3g}", layer.name,
                   layer.method, layer.format, layer.relative_error);
}

StatsNeeds needs_of_plan(const StagePlan& plan, const Architecture& arch) {
  StatsNeeds needs = needs_of_ends(plan, arch);
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      needs = needs | needs_of(treatment_of(plan, arch, layer, l));
    }
  }
  return needs;
}

bool wants_reference(const StagePlan& plan, const Architecture& arch) {
  return needs_of_plan(plan, arch).reference_moment ||
         wants_block_rounding(plan, arch);
}

CalibrationUse calibration_use_of_blocks(const StagePlan& plan,
                                         const Architecture& arch) {
  if (any(needs_of_plan(plan, arch)) || wants_auto_precision(plan) ||
      wants_sparsity_allocation(plan) || !plan.smoothing().empty() ||
      plan.kv_cache() != nullptr) {
    return CalibrationUse::kNeeded;
  }
  const bool counts_outliers =
      std::ranges::any_of(plan.quantizing(), [](const QuantizeStage* stage) {
        return method_of(stage->config).outlier_threshold != nullptr;
      });
  return counts_outliers ? CalibrationUse::kReport : CalibrationUse::kNone;
}

CalibrationUse calibration_use(const StagePlan& plan,
                               const Architecture& arch) {
  const CalibrationUse use = calibration_use_of_blocks(plan, arch);
  bool reduced = false;
  for (const Stage* stage : plan.transforms()) {
    const auto* prune = std::get_if<PruneStage>(stage);
    if (prune == nullptr) continue;
    if (needs_calibration(prune->config)) {
      return CalibrationUse::kNeeded;
    }
    reduced = true;  // measures what it did if there is calibration
  }
  return use == CalibrationUse::kNone && reduced ? CalibrationUse::kReport
                                                 : use;
}

VariantReport compress_variant(const RunInputs& inputs, const VariantJob& job,
                               const RunOptions& options, ThreadPool& pool) {
  return VariantCompressor(inputs, job, options, pool).run();
}

}  // namespace llmpress
