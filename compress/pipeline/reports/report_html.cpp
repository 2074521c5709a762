#include <algorithm>
#include <cmath>

#include "compress/core/formatted.h"
#include "compress/core/printable.h"
#include "compress/pipeline/reports/report_text.h"
#include "compress/pipeline/reports/sparsity_curve.h"
#include "compress/pipeline/reports/svg_chart.h"
#include "compress/pipeline/reports/training_curve.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/replaceable.h"

namespace llmpress {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; white-space: nowrap; }
th, td { padding: .3rem .65rem; text-align: right; border-bottom: 1px solid #e3e3e3; }
th { border-bottom: 2px solid #999; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; }
tbody tr:hover { background: #f5f8fa; }
svg { width: 100%; height: auto; margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content auto; gap: .15rem 1rem; font-size: 13px; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
details { margin: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px; }
.note { color: #8a4b00; } p.small { font-size: 13px; color: #555; }
)";

std::string table(const std::vector<std::string>& columns,
                  const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<div class=\"scroll\"><table><thead><tr>";
  for (const auto& c : columns) html += "<th>" + escape_html(c) + "</th>";
  html += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    html += "<tr>";
    for (const auto& cell : row) html += "<td>" + escape_html(cell) + "</td>";
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

// Perplexities a factor of four apart are easier to tell on a log scale.
bool wants_log(const std::vector<ChartPoint>& points) {
  double low = INFINITY, high = 0;
  for (const ChartPoint& p : points) {
    low = std::min(low, p.y);
    high = std::max(high, p.y);
  }
  return low > 0 && high / low > 4;
}

std::string perplexity_chart(const RunReport& report) {
  ScatterChart chart{.title = "Perplexity against size",
                     .x_title = "weights, MB (all tensors)",
                     .y_title = "perplexity",
                     .connect_front = true};
  if (!report.base) return "";
  chart.points.push_back(
      {.x = static_cast<double>(report.base_size.weight_bytes) / 1e6,
       .y = report.base->perplexity,
       .label = "base",
       .reference = true});
  for (const VariantReport& v : report.variants) {
    if (!v.evaluation) continue;
    chart.points.push_back({.x = static_cast<double>(v.size.weight_bytes) / 1e6,
                            .y = v.evaluation->perplexity,
                            .label = v.name});
  }
  chart.log_y = wants_log(chart.points);
  if (chart.log_y) chart.y_title += " (log)";
  return to_svg(chart);
}

std::string divergence_chart(const RunReport& report) {
  ScatterChart chart{.title = "KL divergence to the base against bits",
                     .x_title = "bits per weight of the Linears",
                     .y_title = "KL, nats (log)",
                     .log_y = true,
                     .connect_front = true};
  for (const VariantReport& v : report.variants) {
    if (!v.divergence) continue;
    chart.points.push_back({.x = v.size.linear_bits_per_weight(),
                            .y = v.divergence->kl_mean,
                            .label = v.name});
  }
  // One width only says nothing that the table does not.
  const bool varies = std::ranges::any_of(
      chart.points,
      [&](const ChartPoint& p) { return p.x != chart.points.front().x; });
  return varies ? to_svg(chart) : "";
}

// "model.layers.3.mlp.down_proj" -> "3.down".
std::string short_name(const std::string& name) {
  std::string layer, last;
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    if (!part.empty() && std::ranges::all_of(part, [](char c) {
          return c >= '0' && c <= '9';
        })) {
      layer = part;
    }
    last = part;
    begin = end + 1;
  }
  if (last.ends_with("_proj")) last.resize(last.size() - 5);
  return layer.empty() ? last : layer + "." + last;
}

std::string layer_chart(const RunReport& report) {
  LineChart chart{.title = "Output error of each Linear",
                  .y_title = "relative error (log)"};
  std::vector<std::string> names;  // a variant may lack some of the Linears
  for (const VariantReport& v : report.variants) {
    if (v.layers.empty()) continue;
    ChartSeries series{.label = v.name};
    for (const LayerReport& l : v.layers) {
      const auto known = std::ranges::find(names, l.name);
      const auto at = static_cast<std::size_t>(known - names.begin());
      if (known == names.end()) {
        names.push_back(l.name);
        chart.positions.push_back(short_name(l.name));
      }
      series.values.resize(std::max(series.values.size(), at + 1));
      series.values[at] = l.relative_error;
    }
    chart.series.push_back(std::move(series));
  }
  return to_svg(chart);
}

std::string variant_section(const VariantReport& v) {
  std::string html = "<details><summary>" + escape_html(v.name) +
                     "</summary>\n<p class=\"small\"><code>" +
                     escape_html(v.output) + "</code> (" +
                     escape_html(v.format) + "), " + fixed(v.seconds, 1) +
                     " s</p>\n";
  for (const std::string& note : v.notes) {
    html += "<p class=\"note\">" + escape_html(note) + "</p>\n";
  }
  if (!v.structured.empty()) {
    html +=
        "<p class=\"small\">Structured pruning; errors are of the residual "
        "stream, over what the half of the dense block adds to it.</p>\n" +
        table(layer_columns(), layer_rows(v.structured));
  }
  return html + table(layer_columns(), layer_rows(v.layers)) + "</details>\n";
}

std::string training_section(const RunReport& report) {
  std::string html;
  for (const VariantReport& v : report.variants) {
    for (const TrainingReport& training : v.training) {
      html += "<h3>" + escape_html(v.name) + "</h3>\n";
      for (const std::string& line : describe(training)) {
        html += "<p class=\"small\">" + escape_html(line) + "</p>\n";
      }
      html += training_chart(training) + domain_chart(training) +
              table(training_columns(), training_rows(training));
    }
  }
  return html.empty() ? html : "<h2>Training</h2>\n" + html;
}

std::string provenance(const RunReport& report) {
  std::string html = "<h2>How it was made</h2>\n<dl>\n";
  for (const auto& [key, value] : provenance_rows(report)) {
    html += "<dt>" + escape_html(key) + "</dt><dd>" + escape_html(value) +
            "</dd>\n";
  }
  html += "</dl>\n";
  if (!report.recipe_yaml.empty()) {
    html += "<details><summary>resolved recipe</summary><pre>" +
            escape_html(report.recipe_yaml) + "</pre></details>\n";
  }
  return html;
}

}  // namespace

std::string to_html(const RunReport& report) {
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>" +
      escape_html(report.title) + " - llmpress report</title>\n<style>" +
      kStyle + "</style></head>\n<body>\n<h1>" + escape_html(report.title) +
      "</h1>\n";
  for (const std::string& note : report.notes) {
    html += "<p class=\"note\">" + escape_html(note) + "</p>\n";
  }
  html += table(model_columns(), model_rows(report));
  html +=
      "<p class=\"small\">Perplexity is exp of the mean negative "
      "log-likelihood, ± its standard error over the scored tokens. KL is "
      "KL(base ‖ model) in nats, the mean over the same positions. Every "
      "model was evaluated from its written files.</p>\n";
  html += perplexity_chart(report) + divergence_chart(report);
  const auto sparsities = sparsity_rows(report);
  if (!sparsities.empty()) {
    html += "<h2>Sparsity</h2>\n" + sparsity_chart(report) +
            table(sparsity_columns(), sparsities);
  }
  html += training_section(report);
  const std::string layers = layer_chart(report);
  if (!layers.empty()) {
    html += "<h2>Layers</h2>\n" + layers +
            "<p class=\"small\">Relative error is E|(W - W')x|² / E|Wx|² over "
            "the calibration inputs of the Linear; where none were "
            "collected, x is white noise. Outliers are inputs that reached "
            "LLM.int8()'s threshold in calibration.</p>\n";
    for (const VariantReport& v : report.variants) html += variant_section(v);
  }
  return html + provenance(report) + "</body></html>\n";
}

RunReport report_of(const Comparison& comparison) {
  RunReport report{.version = LLMPRESS_VERSION,
                   .title = "comparison with " + comparison.base.model,
                   .model = comparison.base.model,
                   .tokenizer_sha256 = comparison.base.tokenizer_sha256,
                   .base_size = comparison.base.size,
                   .base = comparison.base};
  for (const ComparedModel& model : comparison.models) {
    report.variants.push_back({.name = model.evaluation.model,
                               .output = model.evaluation.model,
                               .size = model.evaluation.size,
                               .evaluation = model.evaluation,
                               .divergence = model.divergence});
  }
  return report;
}

void write_report(const RunReport& report,
                  const std::filesystem::path& directory) {
  check_replaceable(directory, OutputKind::kReport);
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    fail(ErrorCode::kIo, "{}: {}", directory, error.message());
  }
  write_file_atomically(directory / "report.json",
                        printable(to_json(report), "\n") + "\n");
  write_file_atomically(directory / "report.md", to_markdown(report));
  write_file_atomically(directory / "report.html", to_html(report));
}

}  // namespace llmpress
