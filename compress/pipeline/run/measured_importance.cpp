#include "compress/pipeline/run/measured_importance.h"

#include "compress/calibration/calibration_states.h"
#include "compress/model/block_weights.h"
#include "formats/gguf/importance_file.h"

namespace llmpress {
namespace {

class ImportanceMeter {
 public:
  explicit ImportanceMeter(const ImportanceJob& job)
      : job_(job),
        arch_(*job.model->arch),
        names_(job.model->checkpoint->config_json(),
               job.model->checkpoint->path().string()),
        ends_(ModelEnds::without_head(*job.model->checkpoint, arch_, job.isa)),
        states_(*job.calibration, ends_, *job.pool) {
    result_.chunks = job.calibration->sequences.size();
    result_.chunk_size = job.calibration->sequences.front().size();
  }

  Imatrix measure() {
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      report(job_.progress, {.phase = "measure importance",
                             .done = layer,
                             .total = arch_.layers,
                             .detail = arch_.block_name(layer)});
      measure_block(layer);
    }
    report(job_.progress, {.phase = "measure importance",
                           .done = arch_.layers,
                           .total = arch_.layers});
    measure_head();
    return std::move(result_);
  }

 private:
  static constexpr StatsNeeds kNeeds{.channel_moments = true};

  // Batch by batch, so that wide inputs are held of one batch only.
  void measure_block(std::size_t layer) {
    const Block block(arch_, layer,
                      read_block(*job_.model->checkpoint, arch_, layer),
                      job_.isa);
    std::vector<std::vector<InputStatsCollector>> collectors;  // [stages]
    for (const StageSpec& stage : block.spec().stages) {
      collectors.emplace_back(
          stage.groups,
          InputStatsCollector(stage.in, kNeeds, states_.tokens(), 0));
    }
    for (CalibrationBatch& batch : states_.batches()) {
      block.begin(batch.state, batch.segments, *job_.pool);
      for (std::size_t s = 0; s < collectors.size(); ++s) {
        add(batch.state, collectors[s]);
        block.run_stage(s, batch.segments, batch.state, *job_.pool);
      }
    }
    keep(layer, collectors);
  }

  void add(const BlockState& state,
           std::vector<InputStatsCollector>& collectors) const {
    const ConstMatrixView X = state.stage_input.view();
    if (state.routing == nullptr) {
      collectors[0].add(X, *job_.pool);
      return;
    }
    for (std::size_t g = 0; g < collectors.size(); ++g) {
      const std::size_t begin = state.routing->offsets[g];
      const std::size_t rows = state.routing->offsets[g + 1] - begin;
      if (rows != 0) {
        collectors[g].add(X.rows_slice(begin, rows), *job_.pool);
      }
    }
  }

  void keep(std::size_t layer,
            std::vector<std::vector<InputStatsCollector>>& collectors) {
    std::vector<std::vector<InputStats>> stats;  // [stages][groups]
    for (auto& of_stage : collectors) {
      stats.emplace_back();
      for (InputStatsCollector& c : of_stage)
        stats.back().push_back(c.finish());
    }
    const BlockSpec& spec = arch_.block(layer);
    for (std::size_t l = 0; l < spec.linears.size(); ++l) {
      const LinearSpec& linear = spec.linears[l];
      keep(arch_.linear_name(layer, l), stats[linear.stage][linear.group],
           spec.stages[linear.stage].groups);
    }
  }

  void keep(const std::string& module, const InputStats& stats,
            std::size_t groups) {
    const ImatrixPlace place = names_.place_of(module);
    const std::size_t in = stats.square_mean.size();
    const std::size_t matrices = place.stacked ? groups : 1;
    ImatrixEntry& entry = result_.entries[place.name];
    if (entry.counts.empty()) {
      entry.counts.resize(matrices);
      entry.sums.resize(matrices * in);
    }
    const auto tokens = static_cast<float>(stats.tokens);
    entry.counts.at(place.index) = tokens;
    for (std::size_t i = 0; i < in; ++i) {
      entry.sums.at(place.index * in + i) = stats.square_mean[i] * tokens;
    }
  }

  void measure_head() {
    InputStatsCollector collector(arch_.hidden, kNeeds, states_.tokens(), 0);
    for (const CalibrationBatch& batch : states_.batches()) {
      collector.add(
          ends_.head_input(batch.state.hidden.view(), *job_.pool).view(),
          *job_.pool);
    }
    keep(arch_.head, collector.finish(), 1);
  }

  const ImportanceJob& job_;
  const Architecture& arch_;
  ImatrixNames names_;
  ModelEnds ends_;
  CalibrationStates states_;
  Imatrix result_{};
};

}  // namespace

Imatrix measure_importance(const ImportanceJob& job) {
  return ImportanceMeter(job).measure();
}

}  // namespace llmpress
