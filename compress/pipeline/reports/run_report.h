// What a run did and what its results are worth, as plain values. The writers
// turn it into JSON, Markdown and one self-contained HTML page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/ranks.h"
#include "compress/pipeline/evaluation/evaluation.h"
#include "compress/pipeline/reports/training_report.h"

namespace llmpress {

// One Linear, as it was and as it is.
struct LayerReport {
  std::string name{};
  std::string method{};  // "gptq", "sparsegpt+gptq", "kept"
  std::string format{};  // describe(PackedWeight)
  std::size_t out = 0, in = 0;
  std::size_t bytes = 0;
  double bits_per_weight = 0;
  double sparsity = 0;  // fraction of zeros among the weights
  // E|(W - W')x|^2 per output, and the same over E|Wx|^2. With no calibration
  // x is taken as white noise.
  double output_error = 0, relative_error = 0;
  bool calibrated = false;             // whether x above are calibration inputs
  std::size_t calibration_tokens = 0;  // that the Linear was shown
  double damping_fraction = 0;         // 0: no Hessian
  // Inputs with |x| >= LLM.int8()'s threshold, if they were calibrated.
  std::size_t outlier_columns = 0;
  double seconds = 0;
  std::vector<std::string> notes{};
};

// One precision of the run.
struct VariantReport {
  std::string name{};
  std::string output{};  // path of the artifact
  std::string format{};  // of the artifact
  std::vector<LayerReport> layers{};
  // What structured pruning did before: removed blocks, and Linears that were
  // healed. Their relative error is that of the residual stream behind them,
  // over what the half of the dense block adds to it.
  std::vector<LayerReport> structured{};
  std::vector<TrainingReport> training{};  // of each stage that trained
  std::string pruning{};                   // "sparsegpt 2:4", or empty
  double linear_nonzeros = 0;  // weights of the blocks' Linears that are not 0
  ModelSize size{};
  std::optional<EvaluationResult> evaluation{};  // from the written artifact
  std::optional<Divergence> divergence{};        // against the base
  double seconds = 0;                            // to compress and write
  std::vector<std::string> notes{};
};

struct RunReport {
  std::string version{};
  std::string title{};
  std::string recipe_yaml{};  // resolved
  std::string model{}, model_sha256{}, tokenizer_sha256{}, calibration_sha256{};
  std::size_t calibration_tokens = 0;
  std::string processor{}, kernels{};  // "avx512-vnni", BLAS core
  std::size_t threads = 0;
  ModelSize base_size{};
  std::optional<EvaluationResult> base{};
  std::vector<VariantReport> variants{};
  double seconds = 0;
  std::size_t peak_memory_bytes = 0;
  std::vector<RankTraffic> traffic{};  // of each rank; none of one process
  std::vector<std::string> notes{};
};

// Keys of the command line's `eval --json` and `compare --json`.
std::string to_json(const EvaluationResult& result);
std::string to_json(const Comparison& comparison);
std::string to_json(const RunReport& report);
std::string to_markdown(const RunReport& report);
// No script, no link, no font from outside: tables and inline SVG charts.
std::string to_html(const RunReport& report);

// The report of `compare`: the candidates as variants without layers.
RunReport report_of(const Comparison& comparison);

// Writes report.json, report.md and report.html into `directory`, which is made
// if it is not there.
void write_report(const RunReport& report,
                  const std::filesystem::path& directory);

}  // namespace llmpress
