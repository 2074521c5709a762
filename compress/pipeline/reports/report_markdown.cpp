#include <algorithm>
#include <string_view>

#include "compress/core/printable.h"
#include "compress/pipeline/reports/report_text.h"
#include "compress/pipeline/reports/sparsity_curve.h"
#include "compress/pipeline/reports/training_curve.h"

namespace llmpress {
namespace {

// Names and notes quote files: nothing in them is markup.
std::string escape(const std::string& raw) {
  std::string out;
  for (const char c : printable(raw)) {
    if (c == '<') {
      out += "&lt;";
      continue;
    }
    if (std::string_view("\\`*[]|").find(c) != std::string_view::npos) {
      out += '\\';
    }
    out += c;
  }
  return out;
}

// Longer than any run of backticks in `text`.
std::string fence_for(const std::string& text, std::size_t least) {
  std::size_t longest = 0, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return std::string(std::max(least, longest + 1), '`');
}

std::string code(const std::string& raw) {
  const std::string text = printable(raw);
  const std::string fence = fence_for(text, 1);
  // A blank on both sides goes with the fence.
  return fence.size() == 1 ? fence + text + fence
                           : fence + " " + text + " " + fence;
}

void add_row(std::string& out, const std::vector<std::string>& cells) {
  for (const std::string& cell : cells) out += "| " + escape(cell) + " ";
  out += "|\n";
}

void add_table(std::string& out, const std::vector<std::string>& columns,
               const std::vector<std::vector<std::string>>& rows) {
  add_row(out, columns);
  add_row(out, std::vector<std::string>(columns.size(), "---"));
  for (const auto& row : rows) add_row(out, row);
  out += "\n";
}

}  // namespace

std::string to_markdown(const RunReport& report) {
  std::string out = "# " + escape(report.title) + "\n\n";
  add_table(out, model_columns(), model_rows(report));
  out +=
      "Perplexity is exp of the mean negative log-likelihood, ± its standard "
      "error over the scored tokens; KL is\nKL(base ‖ model) in nats, the "
      "mean over the same positions. Every model was evaluated from its\n"
      "written files.\n\n";
  for (const std::string& note : report.notes)
    out += "- " + escape(note) + "\n";
  const auto sparsities = sparsity_rows(report);
  if (!sparsities.empty()) {
    out += "\n## Perplexity against sparsity\n\n";
    add_table(out, sparsity_columns(), sparsities);
    out +=
        "Sparsity is the share of the base's weights in the blocks' Linears "
        "that are zero or gone.\n";
  }
  out += "\n## How it was made\n\n";
  for (const auto& [key, value] : provenance_rows(report)) {
    out += "- " + key + ": " + escape(value) + "\n";
  }
  for (const VariantReport& v : report.variants) {
    if (v.layers.empty()) continue;
    out += "\n## " + escape(v.name) + "\n\n" + code(v.output) + " (" +
           v.format + "), " + fixed(v.seconds, 1) + " s\n\n";
    for (const std::string& note : v.notes) out += "- " + escape(note) + "\n";
    if (!v.structured.empty()) {
      out +=
          "\nStructured pruning; errors are of the residual stream, over "
          "what the half of the dense block adds to it:\n\n";
      add_table(out, layer_columns(), layer_rows(v.structured));
    }
    for (const TrainingReport& training : v.training) {
      out += "\n### " + escape(training.stage) + "\n\n";
      add_table(out, training_columns(), training_rows(training));
    }
    add_table(out, layer_columns(), layer_rows(v.layers));
  }
  if (!report.recipe_yaml.empty()) {
    const std::string recipe = printable(report.recipe_yaml, "\n");
    const std::string fence = fence_for(recipe, 3);
    out += "\n## Recipe\n\n" + fence + "yaml\n" + recipe + fence + "\n";
  }
  return out;
}

}  // namespace llmpress
