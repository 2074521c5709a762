// Perplexity against sparsity: the results of a run that pruned, one curve a
// method.
//
//   sparsity = 1 - (weights of the blocks' Linears that are not zero) /
//                  (weights of the blocks' Linears of the base)
//
// so that zeros and removed channels, heads and blocks count alike.
#pragma once

#include <string>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/pipeline/reports/run_report.h"
#include "compress/pipeline/reports/svg_chart.h"

namespace llmpress {

// What pruning the stages do, without how much: "sparsegpt", "wanda owl",
// "sparsegpt 2:4", "ffn, not healed", "depth + wanda"; and what rounds after
// it, "sparsegpt + gptq". Empty: nothing is pruned.
std::string describe_pruning(const StagePlan& plan);

// Of a variant that prunes.
double sparsity_of(const VariantReport& variant, const ModelSize& base);

struct SparsityPoint {
  std::string pruning{}, variant{};
  double sparsity = 0, perplexity = 0;
};

// Evaluated variants that prune: methods in the order of the report, each by
// sparsity.
std::vector<SparsityPoint> sparsity_points(const RunReport& report);

// Empty with fewer than two points.
std::vector<std::string> sparsity_columns();
std::vector<std::vector<std::string>> sparsity_rows(const RunReport& report);
// One line for each method, from the base at sparsity 0.
std::string sparsity_chart(const RunReport& report);

}  // namespace llmpress
