#include "compress/surgery/unit_measures.h"

#include "compress/core/input_stats.h"
#include "compress/model/block.h"
#include "compress/surgery/structured_reduction.h"
#include "pruning/importance.h"

namespace llmpress {
namespace {

// Calls visit(X) with the input X [tokens, width] of a Linear of the dense
// block on the reduced model's stream, batch by batch.
template <class Visit>
void each_input(const UnitMeasureJob& job, std::size_t linear,
                const Visit& visit) {
  const Block block =
      runner_of(*job.arch, job.layer, *job.dense, {.isa = job.isa});
  const std::size_t stage = block.spec().linears[linear].stage;
  for (const CalibrationBatch& batch : job.states->batches()) {
    BlockState state = batch.state;
    block.begin(state, batch.segments, *job.pool);
    for (std::size_t s = 0; s < stage; ++s) {
      block.run_stage(s, batch.segments, state, *job.pool);
    }
    visit(state.stage_input);
  }
}

}  // namespace

std::vector<double> ffn_importance(const UnitMeasureJob& job) {
  const BlockUnits units = ffn_units(job.arch->block(job.layer));
  if (job.importance == Importance::kWeights) {
    return unit_weight_importance(units, *job.dense);
  }
  InputStatsCollector collector(units.count, {.channel_moments = true},
                                job.states->tokens());
  each_input(job, units.parts.back().linear,
             [&](const MatrixF& X) { collector.add(X.view(), *job.pool); });
  return activation_importance(collector.finish().abs_mean);
}

std::vector<double> head_importance(const UnitMeasureJob& job) {
  const BlockUnits units = head_units(job.arch->block(job.layer));
  if (job.importance == Importance::kWeights) {
    return unit_weight_importance(units, *job.dense);
  }
  const std::size_t width = units.parts.back().width;
  std::vector<double> importance(units.count);
  each_input(job, units.parts.back().linear, [&](const MatrixF& X) {
    const auto part = activation_norm_importance(X.view(), width);
    for (std::size_t u = 0; u < importance.size(); ++u) {
      importance[u] += part[u] * static_cast<double>(X.rows());
    }
  });
  return importance;
}

MatrixF query_input_moment(const UnitMeasureJob& job) {
  InputStatsCollector collector(job.arch->hidden, {.second_moment = true},
                                job.states->tokens());
  each_input(job, attention_linears(job.arch->block(job.layer)).q,
             [&](const MatrixF& X) { collector.add(X.view(), *job.pool); });
  return collector.finish().second_moment;
}

}  // namespace llmpress
