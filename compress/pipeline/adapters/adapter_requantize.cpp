#include "compress/pipeline/adapters/adapter_requantize.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "compress/core/error.h"
#include "compress/model/model_files.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/merge_fingerprint.h"
#include "compress/pipeline/run/run_fingerprint.h"
#include "compress/pipeline/run/variant_compressor.h"
#include "formats/checkpoints/artifact_writer.h"
#include "lora/survival.h"
#include "quantizers/gptq.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

// Sums over layers, from which the figures of all are made.
struct Squares {
  double change = 0, surviving = 0, product = 0, error = 0;

  void add(const Survival& s, double rounding_error) {
    change += s.change_norm * s.change_norm;
    surviving += s.surviving_norm * s.surviving_norm;
    product += s.cosine * s.change_norm * s.surviving_norm;
    error += rounding_error;
  }
  MergedLayer layer() const {
    const double norms = std::sqrt(change * surviving);
    MergedLayer all{.name = "all", .change_norm = std::sqrt(change)};
    if (change > 0) {
      all.kept = std::sqrt(surviving / change);
      all.rounding = std::sqrt(error / change);
      all.cosine = norms > 0 ? product / norms : 0;
    }
    return all;
  }
};

double squared_distance(const MatrixF& A, const MatrixF& B) {
  double sum = 0;
  for (std::size_t i = 0; i < A.size(); ++i) {
    const double d = static_cast<double>(A.data()[i]) - B.data()[i];
    sum += d * d;
  }
  return sum;
}

class PackedMerge {
 public:
  PackedMerge(const ModelSource& base, const RequantizeOptions& options,
              ThreadPool& pool)
      : base_(*base.checkpoint),
        arch_(*base.arch),
        tokenizer_(*base.tokenizer),
        options_(options),
        pool_(pool) {}

  RequantizeReport run() {
    AdapterMerge merge = merge_adapters(base_, arch_, options_.adapters,
                                        options_.combine, pool_);
    report_.base = base_.path().string();
    report_.output = options_.output.string();
    report_.format = merged_format(base_, options_.format);
    report_.method =
        options_.calibration ? gptq_method().name : rtn_method().name;
    report_.modules = merge.merged.size();
    changed_.insert(merge.merged.begin(), merge.merged.end());
    for (const std::string& note : merge.notes) add_note(note);
    exact_ = overlay(base_, std::move(merge.edits));
    exact_arch_ = read_architecture(*exact_);
    std::optional<EvaluationText> text;
    if (options_.evaluate) {
      text = load_evaluation_text(options_.evaluate->text, tokenizer_);
      (void)plan_windows(*text, *options_.evaluate);  // before the work
    }
    options_.calibration ? calibrate() : write_nearest();
    measure();
    if (text) evaluate_all(*text);
    return std::move(report_);
  }

 private:
  void add_note(const std::string& note) {
    report_.notes.push_back(note);
    if (options_.log) options_.log(note);
  }

  // --- rounded to nearest, one Linear at a time

  void write_nearest() {
    const auto writer =
        make_artifact_writer({.output = options_.output,
                              .format = report_.format,
                              .source = base_.path(),
                              .modules = module_names(base_, arch_)});
    std::vector<std::string> names = arch_.linear_names();
    for (const std::string& end : {arch_.embedding, arch_.head}) {
      if (base_.has_linear(end) && dense_matrix(base_, end) == nullptr) {
        names.push_back(end);
      }
    }
    for (std::size_t i = 0; i < names.size(); ++i) {
      report(options_.progress, {.phase = "merge",
                                 .done = i,
                                 .total = names.size(),
                                 .detail = names[i]});
      writer->add_linear(names[i], merged_linear(names[i]));
    }
    report(options_.progress,
           {.phase = "merge", .done = names.size(), .total = names.size()});
    copy_other_tensors(names, *writer);
    writer->finish(exact_->config_json());
  }

  LinearWeights merged_linear(const std::string& name) {
    LinearWeights stored = base_.read_linear(name);
    if (!changed_.contains(name)) return stored;
    const LinearWeights changed = exact_->read_linear(name);
    note_lost_order(name, stored);
    const DType scales = scale_type_of(stored.weight);
    stored.weight = round_like(stored.weight, dequantize(changed.weight).view(),
                               name, pool_);
    if (scale_type_of(stored.weight) != scales) {
      add_note(name + ": scales stored as f32: f16 does not hold them");
    }
    stored.bias = changed.bias;
    return stored;
  }

  void note_lost_order(const std::string& name, const LinearWeights& stored) {
    const auto* grouped = std::get_if<GroupedIntWeight>(&stored.weight);
    if (grouped == nullptr || grouped->g_idx.empty()) return;
    add_note(name +
             ": its columns were grouped by importance, and are grouped in "
             "their order now; calibrate to group them anew");
  }

  void copy_other_tensors(const std::vector<std::string>& names,
                          ArtifactWriter& writer) const {
    for (const TensorInfo& info : exact_->tensors().tensors()) {
      const bool done = std::ranges::any_of(names, [&](const auto& name) {
        return info.name.size() > name.size() && info.name.starts_with(name) &&
               info.name[name.size()] == '.';
      });
      if (done) continue;
      const TensorBytes data = exact_->tensors().read(info);
      writer.add_tensor({.name = info.name,
                         .dtype = info.dtype,
                         .shape = info.shape,
                         .bytes = {data.bytes.begin(), data.bytes.end()}});
    }
  }

  // --- with calibration: a run of one stage for each form of weight

  std::vector<Stage> stages() const {
    std::vector<QuantizeStage> stages;
    for (const std::string& name : arch_.linear_names()) {
      if (!changed_.contains(name)) continue;
      const auto config = config_like(base_.read_linear(name), name);
      if (!config) continue;
      auto found = std::ranges::find(stages, *config, &QuantizeStage::config);
      if (found == stages.end()) {
        found = stages.insert(stages.end(), {.config = *config});
      }
      found->layers.targets.push_back(name);
    }
    return {stages.begin(), stages.end()};
  }

  void calibrate() {
    const CalibrationSet calibration =
        load_calibration(*options_.calibration, tokenizer_);
    for (const std::string& note : calibration.notes) add_note(note);
    const std::vector<Stage> stages = this->stages();
    const RunInputs inputs{.checkpoint = exact_.get(),
                           .arch = &exact_arch_,
                           .calibration = &calibration,
                           .model_sha256 = model_sha256(base_, pool_),
                           .tokenizer_sha256 = tokenizer_.sha256,
                           .recipe_yaml = description(),
                           .kernels = kernels_of(options_.isa)};
    OutputConfig output;
    output.path = options_.output;
    output.format = report_.format;
    const VariantJob job{
        .name = "merge", .output = output, .plan = StagePlan(stages, {})};
    RunOptions run;
    run.isa = options_.isa;
    run.resume = options_.resume;
    run.progress = options_.progress;
    run.log = options_.log;
    const VariantReport variant = compress_variant(inputs, job, run, pool_);
    for (const LayerReport& layer : variant.layers) {
      for (const std::string& note : layer.notes) {
        report_.notes.push_back(layer.name + ": " + note);
      }
    }
  }

  // What stands in the artifact in a recipe's place.
  std::string description() const {
    std::string text = "# merged into a quantized base\n# adapters: ";
    text += adapters_sha256(options_.adapters, options_.combine);
    text += "\n# format: ";
    text += report_.format;
    text += "\nmodel: ";
    text += report_.base;
    text += "\nstages:\n";
    for (const WeightedAdapter& adapter : options_.adapters) {
      text += "  - merge_lora: {adapter: ";
      text += adapter.path.string();
      text += ", scale: ";
      text += std::to_string(adapter.weight);
      text += "}\n";
    }
    return text;
  }

  // --- what is left of the change

  void measure() {
    const auto written = open_checkpoint(options_.output);
    Squares total;
    for (const std::string& name : arch_.linear_names()) {
      if (!changed_.contains(name)) continue;
      const LinearWeights stored = base_.read_linear(name);
      if (std::holds_alternative<DenseWeight>(stored.weight)) continue;
      const LinearWeights now = written->read_linear(name);
      add_layer(name, dequantize(stored.weight), now.weight, total);
    }
    report_.all = total.layer();
  }

  void add_layer(const std::string& name, const MatrixF& base,
                 const PackedWeight& written, Squares& total) {
    const MatrixF exact = dequantize(exact_->read_linear(name).weight);
    const MatrixF now = dequantize(written);
    MatrixF change = exact;
    for (std::size_t i = 0; i < change.size(); ++i) {
      change.data()[i] -= base.data()[i];
    }
    const Survival survival =
        measure_survival(change.view(), base.view(), now.view());
    const double error = squared_distance(now, exact);
    total.add(survival, error);
    report_.layers.push_back(
        {.name = name,
         .format = describe(written),
         .change_norm = survival.change_norm,
         .kept = survival.kept,
         .cosine = survival.cosine,
         .rounding = survival.change_norm > 0
                         ? std::sqrt(error) / survival.change_norm
                         : 0});
  }

  void evaluate_all(const EvaluationText& text) {
    const auto written = open_checkpoint(options_.output);
    const auto load = [&](const Checkpoint& checkpoint) {
      return Decoder(checkpoint,
                     Decoder::Options{.isa = options_.isa,
                                      .kv = kv_format(*options_.evaluate),
                                      .progress = options_.progress});
    };
    const Decoder exact = load(*exact_), base = load(base_),
                  now = load(*written);
    const auto under_test = [&](const char* name, const Decoder& decoder,
                                const Checkpoint& checkpoint) {
      return ModelUnderTest{
          .name = name,
          .decoder = &decoder,
          .size = measure_model(checkpoint, decoder.architecture())};
    };
    const std::vector<ModelUnderTest> candidates{
        under_test("base", base, base_), under_test("merged", now, *written)};
    const Comparison comparison =
        compare(under_test("base + change in float32", exact, *exact_),
                candidates, text, *options_.evaluate, pool_, options_.progress);
    report_.exact_result = comparison.base;
    report_.base_result = comparison.models[0].evaluation;
    report_.result = comparison.models[1].evaluation;
    report_.divergence = comparison.models[1].divergence;
  }

  const Checkpoint& base_;
  const Architecture& arch_;
  const Tokenizer& tokenizer_;
  const RequantizeOptions& options_;
  ThreadPool& pool_;
  std::set<std::string> changed_;
  std::unique_ptr<Checkpoint> exact_;  // the base with its change in float32
  Architecture exact_arch_;
  RequantizeReport report_;
};

nlohmann::ordered_json json_of(const MergedLayer& l) {
  return {
      {"name", l.name}, {"format", l.format}, {"change_norm", l.change_norm},
      {"kept", l.kept}, {"cosine", l.cosine}, {"rounding", l.rounding}};
}

}  // namespace

std::string merged_format(const Checkpoint& base, const std::string& wanted) {
  if (!wanted.empty()) return std::string(find_output_format(wanted).name);
  for (const OutputFormat& format : output_formats()) {
    if (format.name == base.format()) return std::string(format.name);
  }
  return "compressed-tensors";
}

RequantizeReport merge_into_packed(const ModelSource& base,
                                   const RequantizeOptions& options,
                                   ThreadPool& pool) {
  return PackedMerge(base, options, pool).run();
}

std::string to_json(const RequantizeReport& report) {
  auto layers = nlohmann::ordered_json::array();
  for (const MergedLayer& l : report.layers) layers.push_back(json_of(l));
  nlohmann::ordered_json json{
      {"base", report.base},         {"output", report.output},
      {"format", report.format},     {"method", report.method},
      {"modules", report.modules},   {"all", json_of(report.all)},
      {"layers", std::move(layers)}, {"notes", report.notes}};
  if (report.result) {
    const auto parse = [](const EvaluationResult& result) {
      return nlohmann::ordered_json::parse(to_json(result));
    };
    json["evaluation"] = {{"base", parse(*report.base_result)},
                          {"exact", parse(*report.exact_result)},
                          {"merged", parse(*report.result)}};
    json["divergence"] = {
        {"kl_mean", report.divergence->kl_mean},
        {"kl_p99", report.divergence->kl_p99},
        {"top1_agreement", report.divergence->top1_agreement}};
  }
  return json.dump(2, ' ', false,
                   nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace llmpress
