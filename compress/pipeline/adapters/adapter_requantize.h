// LoRA adapters merged into a quantized base: each Linear that they change is
// dequantized, changed in float32 and stored again in its own form; all others
// keep their codes. Without calibration the new weight is rounded to nearest,
// with it integers in groups go through GPTQ, block by block.
//
// A change that is small against the steps of the grid does not survive
// rounding. The report says what is left of it (lora/survival.h), of each
// Linear and in all:
//   kept, cosine    of Q(W + D) - Q(W) against D, Q(W) being the base itself
//   rounding        |Q(W + D) - (W + D)|_F / |D|_F: noise against the change
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "compress/pipeline/adapters/adapter_rounding.h"
#include "compress/pipeline/evaluation/evaluation.h"
#include "recipes/recipe.h"

namespace llmpress {

struct RequantizeOptions {
  std::filesystem::path output{};
  std::string format{};  // a row of output_formats(); empty: the base's
  std::vector<WeightedAdapter> adapters{};
  CombineConfig combine{};
  std::optional<CalibrationConfig> calibration{};  // absent: round to nearest
  std::optional<EvaluateConfig> evaluate{};
  Isa isa = best_isa();
  bool resume = true;  // with calibration: goes on from the blocks in
                       // OUTPUT.resume
  Progress progress{};
  std::function<void(const std::string&)> log{};  // may be empty
};

struct MergedLayer {
  std::string name{}, format{};
  double change_norm = 0;  // |D|_F
  double kept = 1, cosine = 1, rounding = 0;
};

struct RequantizeReport {
  std::string base{}, output{}, format{};
  std::string method{};               // "rtn" or "gptq"
  std::size_t modules = 0;            // that the adapters change
  std::vector<MergedLayer> layers{};  // the packed ones among them
  MergedLayer all{};                  // over all of `layers`
  // The base, the base with its change in float32, and what was written.
  std::optional<EvaluationResult> base_result{}, exact_result{}, result{};
  std::optional<Divergence> divergence{};  // of what was written from exact
  std::vector<std::string> notes{};
};

// The row of output_formats() that `wanted` names; empty: the base's.
std::string merged_format(const Checkpoint& base, const std::string& wanted);

// Throws as merge_adapters(), and Error(kUnsupported) for sparse Linears.
RequantizeReport merge_into_packed(const ModelSource& base,
                                   const RequantizeOptions& options,
                                   ThreadPool& pool);

std::string to_json(const RequantizeReport& report);

}  // namespace llmpress
