#include "compress/pipeline/reports/training_curve.h"

#include <algorithm>

#include "compress/core/formatted.h"
#include "compress/pipeline/reports/svg_chart.h"

namespace llmpress {
namespace {

constexpr std::size_t kMostPoints = 100;

// Means of stretches of the batches' losses.
void add_batches(const std::vector<TrainingPoint>& curve,
                 std::vector<ChartPoint>& points) {
  const std::size_t stretch =
      std::max<std::size_t>(1, (curve.size() + kMostPoints - 1) / kMostPoints);
  for (std::size_t begin = 1; begin < curve.size(); begin += stretch) {
    const std::size_t end = std::min(curve.size(), begin + stretch);
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += curve[i].loss.total;
    points.push_back({.x = static_cast<double>(curve[end - 1].step),
                      .y = sum / static_cast<double>(end - begin),
                      .series = "batches"});
  }
}

}  // namespace

std::string training_chart(const TrainingReport& report) {
  ScatterChart chart{.title = formatted("Loss of stage '{}'", report.stage),
                     .x_title = "step",
                     .y_title = "loss",
                     .connect_series = true};
  const std::vector<TrainingPoint>& curve = report.progress.curve;
  if (curve.size() < 2) return "";
  add_batches(curve, chart.points);
  for (const TrainingPoint& point : curve) {
    if (!point.evaluation) continue;
    chart.points.push_back({.x = static_cast<double>(point.step),
                            .y = point.evaluation->total,
                            .series = "evaluated"});
  }
  for (const TrainingPoint& point : curve) {
    if (!point.evaluation || point.evaluation->divergence == 0) continue;
    chart.points.push_back({.x = static_cast<double>(point.step),
                            .y = point.evaluation->divergence,
                            .series = "distance to the teacher"});
  }
  return to_svg(chart);
}

std::string domain_chart(const TrainingReport& report) {
  if (report.domains.empty()) return "";
  ScatterChart chart{.title = "Weights of the domains",
                     .x_title = "step",
                     .y_title = "weight",
                     .connect_series = true};
  for (std::size_t d = 0; d < report.domains.size(); ++d) {
    for (const TrainingPoint& point : report.progress.curve) {
      if (d >= point.domains.size()) continue;
      chart.points.push_back({.x = static_cast<double>(point.step),
                              .y = point.domains[d].weight,
                              .series = report.domains[d]});
    }
  }
  return to_svg(chart);
}

std::vector<std::string> training_columns() {
  return {"step",          "loss",
          "cross-entropy", "distance to teacher",
          "hidden states", "learning rate"};
}

std::vector<std::vector<std::string>> training_rows(
    const TrainingReport& report) {
  std::vector<std::vector<std::string>> rows;
  const auto number = [](double value) {
    return value == 0 ? std::string("-") : formatted("{:.4f}", value);
  };
  for (const TrainingPoint& point : report.progress.curve) {
    if (!point.evaluation) continue;
    rows.push_back(
        {formatted("{}", point.step), number(point.evaluation->total),
         number(point.evaluation->cross_entropy),
         number(point.evaluation->divergence), number(point.evaluation->hidden),
         formatted("{:.3g}", point.learning_rate)});
  }
  return rows;
}

}  // namespace llmpress
