#include "compress/pipeline/reports/sparsity_curve.h"

#include <algorithm>
#include <cmath>

#include "compress/core/formatted.h"
#include "compress/pipeline/reports/report_text.h"
#include "pruning/prune_config.h"

namespace llmpress {
namespace {

std::string describe_stage(const PruneConfig& config) {
  std::string text(facts_of(config.method).name);
  if (config.patterned()) {
    text += formatted(" {}:{}", config.keep, config.of);
  }
  if (config.allocation == SparsityAllocation::kOwl) text += " owl";
  if (!removes_single_weights(config.method) && !config.heal) {
    text += ", not healed";
  }
  return text;
}

void append(std::string& text, const std::string& part) {
  text += (text.empty() ? "" : " + ") + part;
}

}  // namespace

std::string describe_pruning(const StagePlan& plan) {
  std::string text;
  for (const Stage* stage : plan.transforms()) {
    const auto* prune = std::get_if<PruneStage>(stage);
    if (prune != nullptr) append(text, describe_stage(prune->config));
  }
  for (const PruneStage* stage : plan.pruning()) {
    append(text, describe_stage(stage->config));
  }
  if (text.empty()) return text;
  for (const QuantizeStage* stage : plan.quantizing()) {
    append(text, stage->config.method);
  }
  return text;
}

double sparsity_of(const VariantReport& variant, const ModelSize& base) {
  if (base.linear_weights == 0) return 0;
  return 1 - variant.linear_nonzeros / static_cast<double>(base.linear_weights);
}

std::vector<SparsityPoint> sparsity_points(const RunReport& report) {
  std::vector<std::string> methods;
  std::vector<SparsityPoint> points;
  for (const VariantReport& v : report.variants) {
    if (v.pruning.empty() || !v.evaluation) continue;
    if (std::ranges::find(methods, v.pruning) == methods.end()) {
      methods.push_back(v.pruning);
    }
    points.push_back({.pruning = v.pruning,
                      .variant = v.name,
                      .sparsity = sparsity_of(v, report.base_size),
                      .perplexity = v.evaluation->perplexity});
  }
  std::ranges::stable_sort(points, {}, [&](const SparsityPoint& p) {
    return std::pair(std::ranges::find(methods, p.pruning) - methods.begin(),
                     p.sparsity);
  });
  if (points.size() < 2) points.clear();
  return points;
}

std::vector<std::string> sparsity_columns() {
  return {"pruning", "model", "sparsity", "perplexity", "against base"};
}

std::vector<std::vector<std::string>> sparsity_rows(const RunReport& report) {
  std::vector<std::vector<std::string>> rows;
  for (const SparsityPoint& p : sparsity_points(report)) {
    rows.push_back(
        {p.pruning, p.variant, fixed(100 * p.sparsity, 1) + " %",
         fixed(p.perplexity, 4),
         report.base
             ? fixed(100 * (p.perplexity / report.base->perplexity - 1), 2) +
                   " %"
             : ""});
  }
  return rows;
}

std::string sparsity_chart(const RunReport& report) {
  const std::vector<SparsityPoint> points = sparsity_points(report);
  if (points.empty() || !report.base) return "";
  ScatterChart chart{
      .title = "Perplexity against sparsity",
      .x_title = "sparsity, % of the base's weights in the blocks' Linears",
      .y_title = "perplexity (log)",
      .log_y = true,
      .connect_series = true};
  chart.points.push_back({.x = 0,
                          .y = report.base->perplexity,
                          .label = "base",
                          .reference = true});
  for (std::size_t p = 0; p < points.size(); ++p) {
    const bool last =
        p + 1 == points.size() || points[p + 1].pruning != points[p].pruning;
    chart.points.push_back({.x = 100 * points[p].sparsity,
                            .y = points[p].perplexity,
                            .label = last ? points[p].pruning : "",
                            .series = points[p].pruning});
  }
  return to_svg(chart);
}

}  // namespace llmpress
