#include "compress/pipeline/run/sparsity_allocation.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "compress/calibration/calibration_states.h"
#include "compress/calibration/dense_block.h"
#include "pruning/owl.h"

namespace llmpress {
namespace {

std::vector<const PruneStage*> owl_stages(const StagePlan& plan) {
  std::vector<const PruneStage*> stages;
  for (const PruneStage* stage : plan.pruning()) {
    if (stage->config.allocation == SparsityAllocation::kOwl) {
      stages.push_back(stage);
    }
  }
  return stages;
}

class SparsityAllocator {
 public:
  explicit SparsityAllocator(const ModelPass& job)
      : job_(job),
        stages_(owl_stages(*job.plan)),
        states_(*job.calibration,
                ModelEnds::without_head(*job.checkpoint, *job.arch, job.isa),
                *job.pool, job.scratch, job.ranks),
        ratios_(stages_.size(),
                std::vector<std::optional<double>>(job.arch->layers)) {}

  SparsityAllocations allocate() {
    for (std::size_t layer = 0; layer < job_.arch->layers; ++layer) {
      report(job_.progress, {.phase = "measure outliers",
                             .done = layer,
                             .total = job_.arch->layers,
                             .detail = job_.arch->block_name(layer)});
      measure_block(layer);
    }
    report(job_.progress, {.phase = "measure outliers",
                           .done = job_.arch->layers,
                           .total = job_.arch->layers});
    for (std::size_t s = 0; s < stages_.size(); ++s) spread(s);
    return std::move(result_);
  }

 private:
  // E[x^2] of every stage's input, batch by batch, as the block runs.
  void measure_block(std::size_t layer) {
    const DenseBlock dense =
        load_dense_block(*job_.checkpoint, *job_.arch, layer, *job_.pool);
    const Block block = runner_of(*job_.arch, layer, dense, {.isa = job_.isa});
    const auto& stages = block.spec().stages;
    std::vector<InputStatsCollector> collectors;
    for (const StageSpec& stage : stages) {
      collectors.emplace_back(stage.in, StatsNeeds{.channel_moments = true},
                              states_.tokens(), 0, job_.ranks);
    }
    for (std::size_t b = 0; b < states_.rounds(); ++b) {
      if (b >= states_.batches().size()) {
        for (InputStatsCollector& c : collectors) c.add({}, *job_.pool);
        continue;
      }
      CalibrationBatch& batch = states_.batches()[b];
      block.begin(batch.state, batch.segments, *job_.pool);
      for (std::size_t s = 0; s < stages.size(); ++s) {
        collectors[s].add(batch.state.stage_input.view(), *job_.pool);
        block.run_stage(s, batch.segments, batch.state, *job_.pool);
      }
    }
    std::vector<InputStats> stats;
    for (InputStatsCollector& c : collectors) stats.push_back(c.finish());
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      ratios_[s][layer] = ratio(*stages_[s], dense, stats, layer);
    }
  }

  std::optional<double> ratio(const PruneStage& stage, const DenseBlock& dense,
                              const std::vector<InputStats>& stats,
                              std::size_t layer) const {
    std::vector<OwlLinear> linears;
    for (std::size_t l = 0; l < dense.linears.size(); ++l) {
      const LinearSpec& spec = job_.arch->block(layer).linears[l];
      const std::string name = job_.arch->linear_name(layer, l);
      if (job_.plan->treatment(name).prune != &stage) continue;
      linears.push_back({.W = dense.linears[l].W.view(),
                         .square_mean = stats[spec.stage].square_mean});
    }
    if (linears.empty()) return std::nullopt;
    return outlier_ratio(linears, stage.config.owl_threshold, *job_.pool);
  }

  void spread(std::size_t s) {
    const PruneConfig& config = stages_[s]->config;
    std::vector<double> known;
    for (const auto& ratio : ratios_[s]) {
      if (ratio) known.push_back(*ratio);
    }
    const std::vector<double> spread =
        owl_sparsities(known, config.sparsity, config.owl_lambda);
    auto& sparsities = result_.of_stage[stages_[s]];
    std::size_t next = 0;
    for (std::size_t layer = 0; layer < job_.arch->layers; ++layer) {
      const auto& ratio = ratios_[s][layer];
      sparsities.push_back(ratio ? spread[next++] : config.sparsity);
      if (!ratio) continue;
      char line[160];
      std::snprintf(line, sizeof(line),
                    "owl: %s: sparsity %.4f (%.3f %% of its weights above %g "
                    "times the mean score)",
                    job_.arch->block_name(layer).c_str(), sparsities.back(),
                    100 * *ratio, config.owl_threshold);
      result_.notes.push_back(line);
    }
  }

  const ModelPass& job_;
  std::vector<const PruneStage*> stages_;
  CalibrationStates states_;
  std::vector<std::vector<std::optional<double>>> ratios_;  // [stages][layers]
  SparsityAllocations result_;
};

}  // namespace

std::map<const PruneStage*, double> SparsityAllocations::of_block(
    std::size_t layer) const {
  std::map<const PruneStage*, double> sparsities;
  for (const auto& [stage, values] : of_stage) {
    sparsities[stage] = values.at(layer);
  }
  return sparsities;
}

bool wants_sparsity_allocation(const StagePlan& plan) {
  return !owl_stages(plan).empty();
}

SparsityAllocations allocate_sparsities(const ModelPass& job) {
  return SparsityAllocator(job).allocate();
}

}  // namespace llmpress
