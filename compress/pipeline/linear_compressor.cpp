#include "compress/pipeline/linear_compressor.h"

#include <algorithm>
#include <chrono>

#include "quantizers/method.h"

namespace llmpress {
namespace {

double zero_fraction(const MatrixF& W) {
  return static_cast<double>(std::ranges::count(W.data(), 0.0f)) /
         static_cast<double>(std::max<std::size_t>(W.size(), 1));
}

// E|Wx|^2 per output, with white x when nothing was calibrated.
double output_energy(const MatrixF& W, ConstMatrixView S, ThreadPool& pool) {
  const MatrixF zero(W.rows(), W.cols());
  return output_error(W.view(), zero.view(), S, pool);
}

// Sizes and errors of `outcome.weights` against the weight W before any stage.
void measure(const DenseLinear& linear, const InputStats* stats,
             ThreadPool& pool, LinearOutcome& outcome) {
  LayerReport& report = outcome.report;
  const PackedWeight& packed = outcome.weights.weight;
  report.format = describe(packed);
  report.out = rows_of(packed);
  report.in = cols_of(packed);
  report.bytes = stored_bytes(packed);
  report.bits_per_weight = bits_per_weight(packed);
  const MatrixF decoded = dequantize(packed);
  report.sparsity = zero_fraction(decoded);
  ConstMatrixView S;
  if (stats != nullptr && !stats->second_moment.empty()) {
    S = stats->second_moment.view();
    report.calibrated = true;
  }
  report.output_error = output_error(linear.W.view(), decoded.view(), S, pool);
  const double energy = output_energy(linear.W, S, pool);
  report.relative_error = energy > 0 ? report.output_error / energy : 0;
}

}  // namespace

StatsNeeds needs_of(const LinearTreatment& treatment) {
  StatsNeeds needs;
  if (treatment.quantize != nullptr) {
    const QuantizeConfig& config = treatment.quantize->config;
    needs = needs | find_quantizer_method(config.method).needs(config);
  }
  return needs;
}

LinearOutcome compress_linear(const std::string& name,
                              const DenseLinear& linear,
                              const LinearTreatment& treatment,
                              const InputStats* stats, ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
  LinearOutcome outcome{.weights = kept_form(linear),
                        .report = {.name = name, .method = "kept"}};
  if (treatment.quantize != nullptr) {
    const QuantizeConfig& config = treatment.quantize->config;
    QuantizeResult result = find_quantizer_method(config.method)
                                .quantize({.W = linear.W.view(),
                                           .stats = stats,
                                           .config = &config,
                                           .pool = &pool,
                                           .name = name});
    outcome.weights.weight = std::move(result.weight);
    outcome.weights.input = config.input;
    outcome.report.method = config.method;
    outcome.report.damping_fraction = result.damping_fraction;
    outcome.report.notes = std::move(result.notes);
  }
  measure(linear, stats, pool, outcome);
  outcome.report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return outcome;
}

}  // namespace llmpress
