#include "compress/pipeline/run/end_compressor.h"

#include <utility>

#include "compress/core/formatted.h"
#include "compress/model/model_check.h"
#include "formats/linears/dense_linear.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse(const SourcePosition& position,
                         const std::string& why) {
  fail(ErrorCode::kUnsupported, "{}: {}", position.to_string(), why);
}

LinearTreatment treatment_of_end(const StagePlan& plan, const std::string& name,
                                 ModuleRole role) {
  const LinearTreatment treatment = plan.treatment(name, role);
  if (treatment.quantize != nullptr &&
      method_of(treatment.quantize->config).chooses_precision()) {
    refuse(treatment.quantize->position,
           "method '" + treatment.quantize->config.method +
               "' chooses among the Linears of the blocks; give '" + name +
               "' a stage of its own");
  }
  return treatment;
}

DenseLinear read_end(const Checkpoint& checkpoint, const std::string& name) {
  DenseLinear end;
  if (const TensorInfo* plain = dense_matrix(checkpoint, name)) {
    // Through the tensor, which sees what stages made of it.
    end.W = read_matrix(checkpoint.tensors(), plain->name);
    end.dtype = plain->dtype;
    end.stored.weight = make_dense(end.W.view(), plain->dtype);
  } else {
    end.stored = checkpoint.read_linear(name);
    end.W = dequantize(end.stored.weight);
  }
  return end;
}

// Where it lies, as read_end() reads it.
LinearRows read_end_rows(const Checkpoint& checkpoint,
                         const std::string& name) {
  if (const TensorInfo* plain = dense_matrix(checkpoint, name)) {
    return {.W = dense_rows(checkpoint.tensors(), *plain)};
  }
  return checkpoint.read_linear_rows(name);
}

class EndsCompressor {
 public:
  EndsCompressor(const EndsJob& job, CalibrationStreams streams)
      : job_(job), streams_(streams) {}

  CompressedEnds compress() {
    compress_embedding();
    compress_head();
    return std::move(result_);
  }

 private:
  void compress_embedding() {
    const LinearTreatment wanted = embedding_treatment(*job_.plan, *job_.arch);
    if (!wanted.changes() || !job_.ranks.is_first()) return;
    LinearTreatment treatment = wanted;
    QuantizeStage uncalibrated;
    if (wanted.quantize != nullptr) {
      uncalibrated = *wanted.quantize;
      uncalibrated.config = without_calibration(wanted.quantize->config);
      uncalibrated.config.input = {};
      treatment.quantize = &uncalibrated;
    }
    LinearOutcome outcome = run(job_.arch->embedding, treatment, nullptr);
    if (head_shares_embedding()) {
      outcome.report.notes.push_back("the head stays tied to it");
    }
    if (wanted.quantize != nullptr &&
        uncalibrated.config.method != wanted.quantize->config.method) {
      outcome.report.notes.push_back(
          "rounded to nearest: an embedding has no inputs to calibrate on");
    }
    keep(job_.arch->embedding, std::move(outcome));
  }

  void compress_head() {
    const LinearTreatment treatment = head_treatment(*job_.plan, *job_.arch);
    if (!treatment.changes() || head_shares_embedding()) return;
    const StatsNeeds needs = needs_of(treatment);
    InputStats stats;
    if (any(needs)) stats = collect(needs);
    if (!job_.ranks.is_first()) return;
    LinearOutcome outcome =
        run(job_.arch->head, treatment, any(needs) ? &stats : nullptr);
    if (job_.arch->tied_head) {
      result_.unties_head = true;
      outcome.report.notes.push_back(
          "no longer tied to the embedding, which stays as it was");
    }
    keep(job_.arch->head, std::move(outcome));
  }

  // The same stages for both ends of a tied model: one packed matrix.
  bool head_shares_embedding() const {
    const LinearTreatment head = head_treatment(*job_.plan, *job_.arch);
    const LinearTreatment embedding =
        embedding_treatment(*job_.plan, *job_.arch);
    return job_.arch->tied_head && head.quantize == embedding.quantize &&
           head.prune == embedding.prune;
  }

  // Statistics of the final norm's output.
  InputStats collect(const StatsNeeds& needs) const {
    const ModelEnds ends =
        ModelEnds::without_head(*job_.checkpoint, *job_.arch, job_.isa);
    InputStatsCollector collector(job_.arch->hidden, needs,
                                  streams_.compressed->tokens(), 512,
                                  job_.ranks);
    const auto batches = std::as_const(*streams_.compressed).batches();
    for (std::size_t b = 0; b < streams_.compressed->rounds(); ++b) {
      if (b >= batches.size()) {
        collector.add({}, *job_.pool);
        continue;
      }
      const MatrixF X =
          ends.head_input(batches[b].state.hidden.view(), *job_.pool);
      MatrixF full;
      if (needs.reference_moment) {
        const auto reference = std::as_const(*streams_.reference).batches();
        full = ends.head_input(reference[b].state.hidden.view(), *job_.pool);
      }
      collector.add(X.view(), *job_.pool, full.view());
    }
    return collector.finish();
  }

  LinearOutcome run(const std::string& name, const LinearTreatment& treatment,
                    const InputStats* stats) const {
    const Architecture& arch = *job_.arch;
    const bool is_head = name == arch.head;
    const std::string& stored =
        is_head && arch.tied_head ? arch.embedding : name;
    std::vector<float> bias;
    if (is_head && arch.head_bias) {
      bias = read_vector(job_.checkpoint->tensors(), arch.head + ".bias",
                         arch.vocabulary);
    }
    LinearJob job{.name = name,
                  .treatment = treatment,
                  .stats = stats,
                  .importance = job_.importance,
                  .sparsity = treatment.prune == nullptr
                                  ? 0
                                  : treatment.prune->config.target_sparsity()};
    const std::size_t in = is_head ? arch.hidden : arch.input_width();
    if (compresses_by_rows(treatment, in, stats)) {
      LinearRows rows = read_end_rows(*job_.checkpoint, stored);
      if (!bias.empty()) rows.rest.bias = std::move(bias);
      return compress_rows(job, rows, *job_.pool);
    }
    DenseLinear end = read_end(*job_.checkpoint, stored);
    if (!bias.empty()) end.stored.bias = std::move(bias);
    job.linear = &end;
    return compress_linear(job, *job_.pool);
  }

  void keep(const std::string& name, LinearOutcome outcome) {
    if (job_.on_layer) job_.on_layer(outcome.report);
    result_.linears[name] = std::move(outcome.weights);
    result_.layers.push_back(std::move(outcome.report));
  }

  const EndsJob& job_;
  CalibrationStreams streams_;
  CompressedEnds result_;
};

}  // namespace

LinearTreatment embedding_treatment(const StagePlan& plan,
                                    const Architecture& arch) {
  const LinearTreatment treatment =
      treatment_of_end(plan, arch.embedding, ModuleRole::kEmbedding);
  if (treatment.prune != nullptr && any(needs_of({.prune = treatment.prune}))) {
    refuse(treatment.prune->position,
           "'" + arch.embedding +
               "' has no inputs to calibrate on; prune it by magnitude or "
               "leave it out");
  }
  return treatment;
}

LinearTreatment head_treatment(const StagePlan& plan,
                               const Architecture& arch) {
  return treatment_of_end(plan, arch.head, ModuleRole::kHead);
}

StatsNeeds needs_of_ends(const StagePlan& plan, const Architecture& arch) {
  (void)embedding_treatment(plan, arch);  // refuses what it cannot be
  return needs_of(head_treatment(plan, arch));
}

CompressedEnds compress_ends(const EndsJob& job, CalibrationStreams streams) {
  return EndsCompressor(job, streams).compress();
}

}  // namespace llmpress
