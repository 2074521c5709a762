#include "compress/pipeline/reports/report_text.h"

#include <cmath>
#include <cstdio>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

std::vector<std::string> model_row(const std::string& name,
                                   const ModelSize& size,
                                   const std::optional<EvaluationResult>& e,
                                   const std::optional<Divergence>& d) {
  std::vector<std::string> row{name, fixed(size.linear_bits_per_weight(), 3),
                               fixed(size.bits_per_weight(), 3),
                               megabytes(size.weight_bytes)};
  row.push_back(e ? fixed(e->perplexity, 4) + " ± " +
                        fixed(e->perplexity_stderr, 4)
                  : "");
  row.push_back(d ? fixed(100 * (d->perplexity_ratio - 1), 2) + " %" : "");
  row.push_back(d ? fixed(d->kl_mean, 6) + " ± " + fixed(d->kl_stderr, 6) : "");
  row.push_back(d ? fixed(d->kl_p99, 5) : "");
  row.push_back(d ? fixed(100 * d->top1_agreement, 2) + " %" : "");
  row.push_back(e ? fixed(e->tokens_per_second, 0) : "");
  return row;
}

}  // namespace

std::vector<std::string> model_columns() {
  return {"model",
          "bits/weight (Linears)",
          "bits/weight (all)",
          "weights",
          "perplexity",
          "against base",
          "KL to base",
          "KL p99",
          "top-1 agreement",
          "tokens/s"};
}

std::vector<std::vector<std::string>> model_rows(const RunReport& report) {
  std::vector<std::vector<std::string>> rows{
      model_row("base", report.base_size, report.base, std::nullopt)};
  for (const VariantReport& v : report.variants) {
    rows.push_back(model_row(v.name, v.size, v.evaluation, v.divergence));
  }
  return rows;
}

std::vector<std::string> layer_columns() {
  return {"Linear",         "shape",   "method",   "format",   "bits/weight",
          "relative error", "damping", "sparsity", "outliers", "notes"};
}

std::vector<std::vector<std::string>> layer_rows(
    const std::vector<LayerReport>& layers) {
  std::vector<std::vector<std::string>> rows;
  for (const LayerReport& l : layers) {
    std::string notes;
    for (const std::string& note : l.notes) {
      notes += (notes.empty() ? "" : "; ") + note;
    }
    rows.push_back(
        {l.name, l.out == 0 ? "" : formatted("{} × {}", l.out, l.in), l.method,
         l.format, l.bits_per_weight == 0 ? "" : fixed(l.bits_per_weight, 3),
         scientific(l.relative_error),
         l.damping_fraction == 0 ? "" : fixed(l.damping_fraction, 3),
         l.sparsity < 0.005 ? "" : fixed(100 * l.sparsity, 1) + " %",
         l.outlier_columns == 0 ? "" : std::to_string(l.outlier_columns),
         notes});
  }
  return rows;
}

std::vector<std::pair<std::string, std::string>> provenance_rows(
    const RunReport& report) {
  std::vector<std::pair<std::string, std::string>> rows{
      {"model", report.model},
      {"model sha256", report.model_sha256},
      {"tokenizer sha256", report.tokenizer_sha256}};
  if (report.calibration_tokens != 0) {
    rows.push_back({"calibration", formatted("{} tokens, ids sha256 {}",
                                             report.calibration_tokens,
                                             report.calibration_sha256)});
  }
  if (report.base) {
    const EvaluationResult& e = *report.base;
    rows.push_back({"evaluation text", e.text + ", sha256 " + e.text_sha256});
    rows.push_back(
        {"protocol",
         formatted("{}, context {}, {} windows, {} scored of {} "
                   "tokens, float32 accumulation, activations {}, KV cache {}",
                   e.protocol, e.context, e.windows, e.scored_tokens, e.tokens,
                   e.activations, e.kv_cache)});
  }
  rows.push_back({"kernels", report.kernels});
  rows.push_back({"threads", std::to_string(report.threads)});
  rows.push_back({"time", fixed(report.seconds, 1) + " s"});
  rows.push_back({"peak memory", megabytes(report.peak_memory_bytes)});
  rows.push_back({"llmpress", report.version});
  return rows;
}

}  // namespace llmpress
