// `llmpress run` and `llmpress plan`: a recipe carried out from checkpoint to
// artifacts and report.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/core/ranks.h"
#include "compress/kernels/cpu.h"
#include "compress/pipeline/reports/run_report.h"
#include "recipes/recipe.h"

namespace llmpress {

struct RunOptions {
  Isa isa = best_isa();
  bool resume = true;  // go on from the finished blocks of an interrupted run
  std::uint64_t memory_limit = 0;  // bytes; 0: the recipe's, if it has one
  // A folder for what the limit leaves no room for; empty: the recipe's, or
  // beside the output.
  std::filesystem::path scratch{};
  // Where the caller will write the report as JSON, if at all: an output too.
  std::filesystem::path json{};
  // Who carries out the recipe together, from the same arguments: every rank
  // calls run_recipe(), and the first writes the outputs.
  Ranks ranks{};
  // plan_recipe(): says what it would take on so many machines like this one,
  // one rank each, with a network of so many bytes a second.
  std::size_t planned_ranks = 1;
  double planned_network = 1.25e9;
  Progress progress{};
  std::function<void(const std::string&)> log{};  // one line, for people
};

// Throws Error before any work for whatever can be known then; see the exit
// codes of the command line for the rest. Nothing half-written remains, save
// the finished blocks that a later run resumes from. The outputs are the same
// bytes at any number of threads and ranks. Only the report of the first rank
// knows the Linears.
RunReport run_recipe(const Recipe& recipe, const RunOptions& options,
                     ThreadPool& pool);

// One row of `plan`: what would happen to a Linear.
struct PlannedLayer {
  std::string name{}, stored_as{}, becomes{}, method{};
  std::size_t out = 0, in = 0, bytes_before = 0, bytes_after = 0;
};

struct PlannedVariant {
  std::string name{}, output{}, format{};
  std::vector<std::string> notes{};
  std::vector<PlannedLayer> layers{};
  std::vector<std::string> warnings{};  // as the run would say them
  std::size_t output_bytes = 0;
  std::size_t peak_memory_bytes = 0;
  std::size_t disk_bytes = 0;     // at the peak, temporary files included
  std::size_t traffic_bytes = 0;  // that each rank sends
  double seconds = 0;             // a rough estimate from operation counts
};

struct RunPlan {
  std::string model{};
  std::size_t calibration_tokens = 0;
  std::vector<std::string> notes{};  // of the memory limit
  std::size_t ranks = 1;             // for which it says what each takes
  std::vector<PlannedVariant> variants{};
};

// Throws what run_recipe() would before its work.
RunPlan plan_recipe(const Recipe& recipe, const RunOptions& options,
                    ThreadPool& pool);

}  // namespace llmpress
