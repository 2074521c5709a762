#include "compress/pipeline/run/structured_healing.h"

#include <algorithm>
#include <optional>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "compress/kernels/norms.h"
#include "compress/surgery/structured_reduction.h"
#include "pruning/healing.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

double sum_of_squares(const MatrixF& X) {
  double sum = 0;
  for (const float x : X.data()) {
    sum += static_cast<double>(x) * static_cast<double>(x);
  }
  return sum;
}

void subtract_in_place(MatrixF& A, const MatrixF& B) {
  for (std::size_t k = 0; k < A.size(); ++k) A.data()[k] -= B.data()[k];
}

MatrixF product(const MatrixF& X, const MatrixF& W, ThreadPool& pool) {
  MatrixF Y(X.rows(), W.rows());
  matmul_transposed(X.view(), W.view(), Y.view(), pool);
  return Y;
}

class BlockHealer {
 public:
  BlockHealer(const HealingJob& job, const DenseBlock& dense,
              DenseBlock& reduced, PairedStates& states)
      : job_(job),
        spec_(job.dense_arch->block(job.dense_layer)),
        dense_(dense),
        reduced_(reduced),
        states_(states),
        dense_block_(runner_of(*job.dense_arch, job.dense_layer, dense,
                               {.isa = job.isa})),
        reduced_block_(runner_of(*job.reduced_arch, job.reduced_layer, reduced,
                                 {.isa = job.isa})) {}

  std::vector<LayerReport> heal() {
    states_.dense.begin(dense_block_, *job_.pool);
    states_.reduced.begin(reduced_block_, *job_.pool);
    for (const StreamStep& step : stream_steps(spec_)) half(step);
    return std::move(reports_);
  }

 private:
  void half(const StreamStep& step) {
    const std::size_t in = step.first, out = step.last;
    if (job_.config->heal && !job_.channels.empty()) {
      for (const std::size_t l : spec_.stages[in].linears) fit_reader(l);
    }
    const double added = run_dense(in, out);
    fit_writer(in, out, added);
    for (CalibrationBatch& batch : states_.reduced.batches()) {
      for (std::size_t s = in; s <= out; ++s) {
        reduced_block_.run_stage(s, batch.segments, batch.state, *job_.pool);
      }
    }
  }

  // The Linear reads the stream behind a norm: y = W x of the dense model, from
  // what the reduced stream's norm gives.
  void fit_reader(std::size_t l) {
    DenseLinear& linear = reduced_.linears[l];
    ResidualCollector collector(linear.W.rows(), linear.W.cols(),
                                states_.reduced.tokens());
    for (std::size_t b = 0; b < states_.reduced.batches().size(); ++b) {
      const MatrixF& x = states_.dense.batches()[b].state.stage_input;
      const MatrixF& z = states_.reduced.batches()[b].state.stage_input;
      MatrixF residual = product(x, dense_.linears[l].W, *job_.pool);
      subtract_in_place(residual, product(z, linear.W, *job_.pool));
      collector.add(z.view(), residual.view(), *job_.pool);
    }
    (void)refit_linear(l, collector);
  }

  Healed refit_linear(std::size_t l, ResidualCollector& collector) {
    DenseLinear& linear = reduced_.linears[l];
    Healed healed = refit(
        linear.W.view(), collector.finish(), job_.config->damping(), *job_.pool,
        job_.reduced_arch->linear_name(job_.reduced_layer, l));
    linear.W = std::move(healed.W);
    linear.changed = true;
    LinearWeights weights = linear.stored;
    weights.weight = make_dense(linear.W.view(), DType::kF32);
    reduced_block_.replace_linear(l, weights);
    return healed;
  }

  // Runs half of the dense block, and what is skipped behind it; returns
  // E|what it adds to the kept channels of the stream|^2.
  double run_dense(std::size_t in, std::size_t out) {
    double added = 0;
    std::vector<MatrixF> before;
    for (CalibrationBatch& batch : states_.dense.batches()) {
      before.push_back(kept_channels(batch.state.hidden));
      for (std::size_t s = in; s <= out; ++s) {
        dense_block_.run_stage(s, batch.segments, batch.state, *job_.pool);
      }
    }
    if (out + 1 == spec_.stages.size() && job_.skip) job_.skip(states_.dense);
    for (std::size_t b = 0; b < before.size(); ++b) {
      MatrixF difference =
          kept_channels(states_.dense.batches()[b].state.hidden);
      subtract_in_place(difference, before[b]);
      added += sum_of_squares(difference);
    }
    return added / static_cast<double>(states_.dense.tokens());
  }

  MatrixF kept_channels(const MatrixF& hidden) const {
    return job_.channels.empty() ? hidden
                                 : select_columns(hidden.view(), job_.channels);
  }

  // The reduced half runs on copies, batch by batch: its inner vectors are
  // wide.
  void fit_writer(std::size_t in, std::size_t out, double added) {
    const std::size_t l = spec_.stages[out].linears.at(0);
    const MatrixF& W = reduced_.linears[l].W;
    std::optional<ResidualCollector> collector;
    if (job_.config->heal) {
      collector.emplace(W.rows(), W.cols(), states_.reduced.tokens());
    }
    double squared = 0;
    for (std::size_t b = 0; b < states_.reduced.batches().size(); ++b) {
      const CalibrationBatch& batch = states_.reduced.batches()[b];
      BlockState copy = batch.state;
      for (std::size_t s = in; s < out; ++s) {
        reduced_block_.run_stage(s, batch.segments, copy, *job_.pool);
      }
      const MatrixF z = copy.stage_input;
      reduced_block_.run_stage(out, batch.segments, copy, *job_.pool);
      MatrixF residual = kept_channels(states_.dense.batches()[b].state.hidden);
      subtract_in_place(residual, copy.hidden);
      squared += sum_of_squares(residual);
      if (collector) collector->add(z.view(), residual.view(), *job_.pool);
    }
    squared /= static_cast<double>(states_.reduced.tokens());
    const auto width = static_cast<double>(W.rows());
    Healed healed{.error_removed = squared / width,
                  .error_healed = squared / width};
    if (collector) healed = refit_linear(l, *collector);
    reports_.push_back(report_of(l, healed, added / width));
  }

  LayerReport report_of(std::size_t l, const Healed& healed,
                        double added) const {
    const DenseLinear& linear = reduced_.linears[l];
    const auto relative = [&](double error) {
      return added > 0 ? error / added : 0.0;
    };
    const bool heals = job_.config->heal;
    LayerReport report{
        .name = job_.reduced_arch->linear_name(job_.reduced_layer, l),
        .method = heals ? "healed" : "cut",
        .format = job_.unit,
        .out = linear.W.rows(),
        .in = linear.W.cols(),
        .output_error = healed.error_healed,
        .relative_error = relative(healed.error_healed),
        .calibrated = true,
        .damping_fraction = healed.damping_fraction,
        .notes = healed.notes};
    if (heals) {
      report.notes.push_back("relative error " +
                             scientific(relative(healed.error_removed)) +
                             " before healing");
    }
    return report;
  }

  const HealingJob& job_;
  const BlockSpec& spec_;
  const DenseBlock& dense_;
  DenseBlock& reduced_;
  PairedStates& states_;
  Block dense_block_, reduced_block_;
  std::vector<LayerReport> reports_;
};

MatrixF behind_final_norm(const HeadHealingJob& job,
                          const CalibrationBatch& batch,
                          std::span<const float> gain) {
  const MatrixF& hidden = batch.state.hidden;
  MatrixF normed(hidden.rows(), hidden.cols());
  rms_norm(hidden.view(), gain, job.arch->final_norm_options.epsilon,
           normed.view(), *job.pool);
  return normed;
}

}  // namespace

std::vector<LayerReport> heal_block(const HealingJob& job,
                                    const DenseBlock& dense,
                                    DenseBlock& reduced, PairedStates& states) {
  return BlockHealer(job, dense, reduced, states).heal();
}

MatrixF heal_head(const HeadHealingJob& job, const PairedStates& states) {
  const Architecture& arch = *job.arch;
  const MatrixF W = dequantize(job.checkpoint->read_linear(arch.head).weight);
  const MatrixF cut = select_columns(W.view(), job.channels);
  const auto gain = read_vector(job.checkpoint->tensors(),
                                arch.final_norm + ".weight", arch.hidden);
  auto reduced_gain = select_values(gain, job.channels);
  for (float& g : reduced_gain) {
    g = static_cast<float>(static_cast<double>(g) * job.final_gain);
  }
  ResidualCollector collector(arch.hidden, job.channels.size(),
                              states.dense.tokens());
  for (std::size_t b = 0; b < states.dense.batches().size(); ++b) {
    const MatrixF x = behind_final_norm(job, states.dense.batches()[b], gain);
    const MatrixF z =
        behind_final_norm(job, states.reduced.batches()[b], reduced_gain);
    collector.add(z.view(), x.view(), *job.pool);
  }
  ResidualMoments moments = collector.finish();
  MatrixF R(W.rows(), cut.cols());  // W E[x z^T] - W_K E[z z^T]
  matmul(W.view(), moments.R.view(), R.view(), *job.pool);
  matmul(cut.view(), moments.S.view(), R.view(), *job.pool, -1.0f,
         Accumulate::kAdd);
  moments.R = std::move(R);
  return refit(cut.view(), std::move(moments), job.config->damping(), *job.pool,
               arch.head)
      .W;
}

}  // namespace llmpress
