#include "compress/pipeline/run/linear_compressor.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string_view>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "pruning/method.h"
#include "quantizers/block_weight.h"
#include "quantizers/method.h"
#include "quantizers/row_rounding.h"
#include "quantizers/weight_error.h"

namespace llmpress {
namespace {

// Inputs that reached the method's threshold, else the one of LLM.int8()
// (arXiv:2208.07339, section 3).
std::size_t outlier_columns(const InputStats& stats,
                            const LinearTreatment& treatment) {
  double threshold = 0;
  if (treatment.quantize != nullptr) {
    const QuantizeConfig& config = treatment.quantize->config;
    const QuantizerMethod& method = method_of(config);
    if (method.outlier_threshold != nullptr) {
      threshold = method.outlier_threshold(config);
    }
  }
  if (!(threshold > 0)) threshold = kOutlierThreshold;
  return static_cast<std::size_t>(std::ranges::count_if(
      stats.abs_max, [&](float x) { return x >= threshold; }));
}

// What the report says of `outcome.weights` itself.
void describe_weight(const InputStats* stats, const LinearTreatment& treatment,
                     LinearOutcome& outcome) {
  LayerReport& report = outcome.report;
  const PackedWeight& packed = outcome.weights.weight;
  report.format = describe(packed);
  report.out = rows_of(packed);
  report.in = cols_of(packed);
  report.bytes = stored_bytes(packed);
  report.bits_per_weight = bits_per_weight(packed);
  if (stats != nullptr) {
    report.outlier_columns = outlier_columns(*stats, treatment);
  }
}

void set_errors(const WeightDifference& difference, double energy,
                LayerReport& report) {
  report.sparsity = difference.zero_fraction;
  report.output_error = difference.output_error;
  report.relative_error = energy > 0 ? report.output_error / energy : 0;
}

// Against the weight W before any stage; `known_error`, where the method that
// rounded W has measured it.
void measure(const DenseLinear& linear, const InputStats* stats,
             std::optional<double> known_error, ThreadPool& pool,
             LinearOutcome& outcome) {
  const PackedWeight& packed = outcome.weights.weight;
  ConstMatrixView S;
  if (stats != nullptr && !stats->second_moment.empty()) {
    S = stats->second_moment.view();
    outcome.report.calibrated = true;
  }
  const WeightDifference difference =
      known_error ? WeightDifference{*known_error, zero_fraction(packed, pool)}
                  : difference_of(linear.W.view(), packed, S, pool);
  set_errors(difference, output_energy(linear.W.view(), S, pool),
             outcome.report);
}

void add_notes(std::vector<std::string> notes, LayerReport& report) {
  report.notes.insert(report.notes.end(), notes.begin(), notes.end());
}

PruneResult prune(const LinearJob& job, ThreadPool& pool,
                  LinearOutcome& outcome) {
  const PruneConfig& config = job.treatment.prune->config;
  PruneResult result = prune_weight({.W = job.linear->W.view(),
                                     .stats = job.stats,
                                     .config = &config,
                                     .sparsity = job.sparsity,
                                     .pool = &pool,
                                     .name = job.name,
                                     .inverse = job.inverse});
  outcome.weights.weight =
      make_dense(result.W.view(), job.linear->dtype.value_or(DType::kF32));
  outcome.report.method = facts_of(config.method).name;
  outcome.report.damping_fraction = result.damping_fraction;
  add_notes(result.notes, outcome.report);
  return result;
}

// A method that pays for removal starts from the weight as it was and pays for
// removal and rounding together (arXiv:2301.00774, section 3.5); others round
// what pruning left. Returns the error against the weight before any stage, if
// that is what was rounded.
std::optional<double> quantize(const LinearJob& job, const PruneResult& pruned,
                               ThreadPool& pool, LinearOutcome& outcome) {
  const QuantizeConfig& config = job.treatment.quantize->config;
  const bool masked = !pruned.mask.empty();
  const bool joint = masked && method_of(config).pays_for_removal;
  QuantizeRequest request{.W = job.linear->W.view(),
                          .stats = job.stats,
                          .config = &config,
                          .pool = &pool,
                          .name = job.name,
                          .inverse = job.inverse};
  InputStats importance;
  if (!job.treatment.quantize->importance.empty() &&
      method_of(config).takes_importance) {
    importance = job.importance->stats_of(*job.treatment.quantize, job.name,
                                          job.linear->W.cols());
    request.stats = &importance;
  }
  if (joint) request.mask = pruned.mask.view();
  if (masked && !joint) request.W = pruned.W.view();
  QuantizeResult result = job.learned == nullptr
                              ? quantize_weight(request)
                              : finish_rounding(request, *job.learned);
  LayerReport& report = outcome.report;
  outcome.weights.weight = std::move(result.weight);
  outcome.weights.input = result.input;
  report.method = masked ? report.method + "+" + config.method : config.method;
  report.damping_fraction =
      std::max(report.damping_fraction, result.damping_fraction);
  add_notes(result.notes, report);
  return masked ? std::nullopt : std::optional(result.output_error);
}

}  // namespace

bool has_sparse_form(const PackedWeight& weight) {
  if (std::holds_alternative<DenseWeight>(weight)) return true;
  const auto* grouped = std::get_if<GroupedIntWeight>(&weight);
  return grouped != nullptr && grouped->g_idx.empty() &&
         grouped->float_zeros.empty() &&
         (grouped->bits == 4 || grouped->bits == 8);
}

namespace {

// Leaves the zeros out where the recipe asks for it and a packed form exists.
void store_pruned(const LinearJob& job, LinearOutcome& outcome) {
  const PruneConfig& config = job.treatment.prune->config;
  if (config.storage != SparseStorage::kSparse) return;
  const bool two_of_four = config.keep == 2 && config.of == 4;
  const SparsePattern pattern =
      two_of_four ? SparsePattern::k2of4 : SparsePattern::kBitmask;
  PackedWeight& weight = outcome.weights.weight;
  if (!has_sparse_form(weight)) {
    outcome.report.notes.push_back("kept dense: no sparse form of " +
                                   describe(weight));
  } else if (const auto* dense = std::get_if<DenseWeight>(&weight)) {
    const DType dtype = dense->dtype;
    weight = make_sparse(dequantize(weight).view(), pattern, dtype);
  } else {
    weight = make_sparse(std::get<GroupedIntWeight>(weight), pattern);
  }
}

// As quantize() returns.
std::optional<double> treat(const LinearJob& job, ThreadPool& pool,
                            LinearOutcome& outcome) {
  PruneResult pruned;
  std::optional<double> error;
  if (job.treatment.prune == nullptr && job.treatment.quantize == nullptr) {
    outcome.weights = kept_form(*job.linear);
    return error;
  }
  const LinearWeights& stored = job.linear->stored;
  outcome.weights = {.bias = stored.bias,
                     .input = stored.input,
                     .input_hadamard = stored.input_hadamard};
  if (job.treatment.learned) {
    outcome.weights.weight = stored.weight;
    outcome.report.method = "trained";
    return error;
  }
  if (job.treatment.prune != nullptr) pruned = prune(job, pool, outcome);
  if (job.treatment.quantize != nullptr) {
    error = quantize(job, pruned, pool, outcome);
  }
  if (job.treatment.prune != nullptr) store_pruned(job, outcome);
  return error;
}

}  // namespace

StatsNeeds needs_of(const LinearTreatment& treatment) {
  StatsNeeds needs;
  if (treatment.prune != nullptr) {
    const PruneConfig& config = treatment.prune->config;
    needs = needs | find_weight_pruner(config.method)->needs(config);
  }
  if (treatment.quantize != nullptr && treatment.quantize->importance.empty()) {
    const QuantizeConfig& config = treatment.quantize->config;
    needs = needs | method_of(config).needs(config);
  }
  return needs;
}

bool shares_rows(const LinearTreatment& treatment) {
  return treatment.quantize != nullptr && treatment.prune == nullptr &&
         rounding_method(treatment.quantize->config).shares_rows;
}

namespace {

// Names the Linear in what `work` throws, and the time that it took.
template <class Work>
LinearOutcome named_and_timed(const std::string& name, const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  LinearOutcome outcome{.report = {.name = name, .method = "kept"}};
  try {
    work(outcome);
  } catch (const Error& e) {
    const std::string_view what = e.what();
    if (what.find(name) != std::string_view::npos) throw;
    fail(e.code(), "{}: {}", name, e.what());
  }
  outcome.report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return outcome;
}

}  // namespace

LinearOutcome compress_linear(const LinearJob& job, ThreadPool& pool) {
  return named_and_timed(job.name, [&](LinearOutcome& outcome) {
    const std::optional<double> known_error = treat(job, pool, outcome);
    describe_weight(job.stats, job.treatment, outcome);
    measure(*job.linear, job.stats, known_error, pool, outcome);
  });
}

bool compresses_by_rows(const LinearTreatment& treatment, std::size_t in,
                        const InputStats* stats) {
  if (treatment.quantize == nullptr || treatment.prune != nullptr ||
      treatment.learned ||
      (stats != nullptr && !stats->second_moment.empty())) {
    return false;
  }
  const QuantizeConfig& config = treatment.quantize->config;
  const QuantizerMethod& method = method_of(config);
  return method.rounds_rows_apart != nullptr &&
         method.rounds_rows_apart(config, in);
}

LinearOutcome compress_rows(const LinearJob& job, const LinearRows& linear,
                            ThreadPool& pool) {
  return named_and_timed(job.name, [&](LinearOutcome& outcome) {
    const QuantizeConfig& config = job.treatment.quantize->config;
    outcome.weights = linear.rest;
    RowsRounded rounded =
        quantize_rows(linear.W, config, job.stats, job.name, pool);
    outcome.weights.weight = std::move(rounded.result.weight);
    outcome.weights.input = rounded.result.input;
    outcome.report.method = config.method;
    add_notes(std::move(rounded.result.notes), outcome.report);
    describe_weight(job.stats, job.treatment, outcome);
    set_errors(rounded.totals.difference, rounded.totals.energy,
               outcome.report);
  });
}

}  // namespace llmpress
