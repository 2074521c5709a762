#include "compress/pipeline/block_compressor.h"

#include "compress/pipeline/block_smoothing.h"

namespace llmpress {
namespace {

// Carries a block through its stages. The input of a stage that is wider than
// the residual stream (an MLP's inner width) is not kept for all calibration
// tokens: the stage before it is left pending and runs again, batch by batch.
class StagedBlock {
 public:
  StagedBlock(const BlockJob& job, DenseBlock block, CalibrationStates* states)
      : job_(job), block_(std::move(block)), states_(states) {
    if (states_ == nullptr) return;
    runner_.emplace(*job.arch, job.layer, block_.runnable(), job.isa);
    states_->begin(*runner_, *job.pool);
  }

  CompressedBlock run() {
    const auto& stages = job_.arch->block.stages;
    compressed_.weights.norms = block_.norms;
    compressed_.norm_dtypes = block_.norm_dtypes;
    compressed_.weights.linears.resize(block_.linears.size());
    compressed_.layers.resize(block_.linears.size());
    for (std::size_t s = 0; s < stages.size(); ++s) {
      const StatsNeeds needs = needs_of_stage(s);
      const InputStats stats = collect(s, needs);
      for (const std::size_t l : stages[s].linears) {
        compress(l, any(needs) ? &stats : nullptr);
      }
      advance(s);
    }
    return std::move(compressed_);
  }

 private:
  LinearTreatment treatment(std::size_t linear) const {
    return job_.plan->treatment(job_.arch->linear_name(job_.layer, linear));
  }

  double sparsity_of(const LinearTreatment& treatment) const {
    if (treatment.prune == nullptr) return 0;
    return job_.sparsity.value_or(treatment.prune->config.target_sparsity());
  }

  StatsNeeds needs_of_stage(std::size_t stage) const {
    StatsNeeds needs;
    if (states_ == nullptr) return needs;
    for (const std::size_t l : job_.arch->block.stages[stage].linears) {
      needs = needs | needs_of(treatment(l));
    }
    return needs;
  }

  InputStats collect(std::size_t stage, const StatsNeeds& needs) {
    if (!any(needs)) return {};
    const std::size_t width = job_.arch->block.stages[stage].in;
    if (pending_) {
      return states_->collect_after(*runner_, stage - 1, width, needs,
                                    *job_.pool);
    }
    return states_->collect(width, needs, *job_.pool);
  }

  void compress(std::size_t l, const InputStats* stats) {
    LinearOutcome outcome =
        compress_linear({.name = job_.arch->linear_name(job_.layer, l),
                         .linear = &block_.linears[l],
                         .treatment = treatment(l),
                         .stats = stats,
                         .sparsity = sparsity_of(treatment(l))},
                        *job_.pool);
    if (runner_) runner_->replace_linear(l, outcome.weights);
    if (job_.on_layer) job_.on_layer(outcome.report);
    compressed_.weights.linears[l] = std::move(outcome.weights);
    compressed_.layers[l] = std::move(outcome.report);
    block_.linears[l] = {};  // the dense copy is of no more use
  }

  void advance(std::size_t stage) {
    if (!runner_) return;
    const auto& stages = job_.arch->block.stages;
    if (pending_) states_->run_stage(*runner_, stage - 1, *job_.pool);
    pending_ = stage + 1 < stages.size() &&
               stages[stage + 1].in > job_.arch->hidden &&
               any(needs_of_stage(stage + 1));
    if (!pending_) states_->run_stage(*runner_, stage, *job_.pool);
  }

  const BlockJob& job_;
  DenseBlock block_;
  CalibrationStates* states_;
  std::optional<Block> runner_;
  bool pending_ = false;  // the stage before the current one has not run
  CompressedBlock compressed_;
};

}  // namespace

CompressedBlock compress_block(const BlockJob& job, DenseBlock block,
                               CalibrationStates* states) {
  if (states != nullptr && wants_smoothing(*job.plan, *job.arch, job.layer)) {
    for (const std::string& note : smooth_block_in_place({.arch = job.arch,
                                   .plan = job.plan,
                                   .layer = job.layer,
                                   .isa = job.isa,
                                   .pool = job.pool},
                                                         block, *states)) {
      if (job.on_note) job.on_note(note);
    }
  }
  return StagedBlock(job, std::move(block), states).run();
}

}  // namespace llmpress
