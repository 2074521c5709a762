#include "compress/pipeline/report_text.h"
#include "compress/pipeline/sparsity_curve.h"

namespace llmpress {
namespace {

void add_row(std::string& out, const std::vector<std::string>& cells) {
  for (const std::string& cell : cells) out += "| " + cell + " ";
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
  std::string out = "# " + report.title + "\n\n";
  add_table(out, model_columns(), model_rows(report));
  out +=
      "Perplexity is exp of the mean negative log-likelihood, ± its standard "
      "error over the scored tokens; KL is\nKL(base ‖ model) in nats, the "
      "mean over the same positions. Every model was evaluated from its\n"
      "written files.\n\n";
  for (const std::string& note : report.notes) out += "- " + note + "\n";
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
    out += "- " + key + ": " + value + "\n";
  }
  for (const VariantReport& v : report.variants) {
    if (v.layers.empty()) continue;
    out += "\n## " + v.name + "\n\n`" + v.output + "` (" + v.format + "), " +
           fixed(v.seconds, 1) + " s\n\n";
    for (const std::string& note : v.notes) out += "- " + note + "\n";
    if (!v.structured.empty()) {
      out +=
          "\nStructured pruning; errors are of the residual stream, over "
          "what the half of the dense block adds to it:\n\n";
      add_table(out, layer_columns(), layer_rows(v.structured));
    }
    add_table(out, layer_columns(), layer_rows(v.layers));
  }
  if (!report.recipe_yaml.empty()) {
    out += "\n## Recipe\n\n```yaml\n" + report.recipe_yaml + "```\n";
  }
  return out;
}

}  // namespace llmpress
