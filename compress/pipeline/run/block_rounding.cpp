#include "compress/pipeline/run/block_rounding.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <variant>

#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "compress/model/training/trainable_linear.h"
#include "compress/pipeline/run/rounded_linear.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

constexpr std::size_t kNumbersPerTask = 1 << 14;

bool learns_in_block(const LinearTreatment& treatment) {
  return treatment.quantize != nullptr &&
         method_of(treatment.quantize->config).block_wise;
}

// sum (Y - T)^2, and 2 (Y - T) in Y's place.
double square_sum_and_gradient(MatrixF& Y, const MatrixF& T, ThreadPool& pool) {
  const std::size_t tasks = (Y.size() + kNumbersPerTask - 1) / kNumbersPerTask;
  std::vector<double> sums(tasks);
  pool.for_each(tasks, [&](std::size_t task) {
    const std::size_t begin = task * kNumbersPerTask;
    const std::size_t end = std::min(Y.size(), begin + kNumbersPerTask);
    for (std::size_t k = begin; k < end; ++k) {
      const float d = Y.data()[k] - T.data()[k];
      sums[task] += static_cast<double>(d) * static_cast<double>(d);
      Y.data()[k] = 2 * d;
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// Sequences in an order drawn by seed, all of them before one comes again.
class SequenceOrder {
 public:
  SequenceOrder(std::size_t count, std::size_t batch, std::uint64_t seed)
      : rng_(seed), order_(count), batch_(std::min(count, batch)) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    next_ = count;
  }

  std::span<const std::size_t> draw() {
    if (next_ + batch_ > order_.size()) {
      for (std::size_t i = order_.size(); i > 1; --i) {
        std::swap(order_[i - 1], order_[rng_.below(i)]);
      }
      next_ = 0;
    }
    next_ += batch_;
    return std::span(order_).subspan(next_ - batch_, batch_);
  }

 private:
  Rng rng_;
  std::vector<std::size_t> order_;
  std::size_t batch_, next_ = 0;
};

// Where a calibration sequence lies.
struct SequenceRows {
  std::size_t batch = 0, first = 0, rows = 0;
};

std::vector<SequenceRows> sequences_of(const CalibrationStates& states) {
  std::vector<SequenceRows> all;
  for (std::size_t b = 0; b < states.batches().size(); ++b) {
    std::size_t first = 0;
    for (const Segment& segment : states.batches()[b].segments) {
      all.push_back({b, first, segment.rows});
      first += segment.rows;
    }
  }
  return all;
}

// Rows of `chosen` sequences one after another; `of(batch)` has their batch's.
template <class Of>
MatrixF gather(std::span<const SequenceRows> chosen, const Of& of) {
  std::size_t rows = 0;
  for (const SequenceRows& s : chosen) rows += s.rows;
  MatrixF to(rows, of(chosen.front().batch).cols());
  std::size_t at = 0;
  for (const SequenceRows& s : chosen) {
    const MatrixF& from = of(s.batch);
    const auto part = from.view().rows_slice(s.first, s.rows).data();
    std::ranges::copy(part, to.row(at).data());
    at += s.rows;
  }
  return to;
}

class BlockLearner {
 public:
  BlockLearner(const BlockRoundingJob& job, const DenseBlock& block,
               const CalibrationStates& inputs)
      : job_(job),
        spec_(job.arch->block(job.layer)),
        inputs_(inputs),
        sequences_(sequences_of(inputs)),
        block_(*job.arch, job.layer, block.runnable(), job.isa) {
    own_.norms.resize(spec_.norms.size());
    own_.parameters.resize(spec_.parameters.size());
    BlockWeights stored = block.runnable();
    for (std::size_t l = 0; l < spec_.linears.size(); ++l) {
      add_linear(l, block.linears[l], std::move(stored.linears[l]));
    }
  }

  void set_targets(const DenseBlock& block,
                   const CalibrationStates& reference) {
    const Block whole(*job_.arch, job_.layer, block.runnable(), job_.isa);
    for (const CalibrationBatch& batch : reference.batches()) {
      BlockState state = batch.state;
      whole.run(batch.segments, state, *job_.pool);
      targets_.push_back(std::move(state.hidden));
    }
  }

  BlockRounding learn() {
    BlockRounding result{.loss_before = loss()};
    const std::vector<RoundingParameters> nearest = parameters();
    SequenceOrder order(sequences_.size(), config_->batch_size, config_->seed);
    for (std::size_t i = 0; i < config_->iterations; ++i) {
      run_backward(order.draw());
      const RoundingRates rates = rates_at(*config_, i);
      for (RoundedLinear* const linear : learning_) {
        if (linear != nullptr) linear->step(rates, *job_.pool);
      }
    }
    result.loss_after = loss();
    // Also where it is no number.
    if (!(result.loss_after < result.loss_before)) {
      set_parameters(nearest);
      result.loss_after = result.loss_before;
    }
    for (const RoundedLinear* const linear : learning_) {
      result.weights.emplace_back();
      if (linear != nullptr) {
        result.weights.back() = linear->rounding().pack(*job_.pool);
      }
    }
    return result;
  }

 private:
  void add_linear(std::size_t l, const DenseLinear& linear,
                  LinearWeights stored) {
    const std::string name = job_.arch->linear_name(job_.layer, l);
    const LinearTreatment treatment =
        treatment_of(*job_.plan, *job_.arch, job_.layer, l);
    std::unique_ptr<LinearKernel> kernel;
    if (!learns_in_block(treatment)) {
      auto frozen = std::make_unique<FrozenLinear>(std::move(stored), job_.isa);
      learning_.push_back(nullptr);
      reversible_.push_back(frozen.get());
      kernel = std::move(frozen);
    } else {
      check(name, treatment, linear);
      auto rounded = std::make_unique<RoundedLinear>(
          linear.W.view(), linear.stored.bias,
          treatment.quantize->config.weights, *job_.pool);
      if (job_.start != nullptr) {
        if (const auto* const start =
                std::get_if<GroupedIntWeight>(&job_.start->linears[l].weight)) {
          rounded->start_from(*start, *job_.pool);
        }
      }
      learning_.push_back(rounded.get());
      reversible_.push_back(rounded.get());
      kernel = std::move(rounded);
    }
    block_.wrap_linear(
        l, [&](std::unique_ptr<LinearKernel>) { return std::move(kernel); });
  }

  void check(const std::string& name, const LinearTreatment& treatment,
             const DenseLinear& linear) {
    const QuantizeConfig& config = treatment.quantize->config;
    if (treatment.prune != nullptr) {
      fail(ErrorCode::kUnsupported,
           "{}: method '{}' does not keep the zeros of pruning; quantize it by "
           "another one",
           name, config.method);
    }
    if (linear.stored.input_hadamard != 0) {
      fail(ErrorCode::kUnsupported,
           "{}: its input is rotated at run time, which method '{}' cannot "
           "learn through",
           name, config.method);
    }
    if (config_ != nullptr && !(*config_ == config.signed_rounding)) {
      fail(ErrorCode::kInvalidArgument,
           "{}: method '{}' learns a block by one set of settings; this Linear "
           "has others",
           name, config.method);
    }
    config_ = &config.signed_rounding;
  }

  std::vector<RoundingParameters> parameters() const {
    std::vector<RoundingParameters> all;
    for (const RoundedLinear* const linear : learning_) {
      if (linear != nullptr) all.push_back(linear->rounding().parameters());
    }
    return all;
  }
  void set_parameters(const std::vector<RoundingParameters>& all) {
    std::size_t next = 0;
    for (RoundedLinear* const linear : learning_) {
      if (linear != nullptr) linear->set_parameters(all[next++], *job_.pool);
    }
  }

  // L of the whole calibration set.
  double loss() const {
    double sum = 0, count = 0;
    for (std::size_t b = 0; b < targets_.size(); ++b) {
      const CalibrationBatch& batch = inputs_.batches()[b];
      BlockState state = batch.state;
      block_.run(batch.segments, state, *job_.pool);
      sum += square_sum_and_gradient(state.hidden, targets_[b], *job_.pool);
      count += static_cast<double>(targets_[b].size());
    }
    return sum / count;
  }

  BlockState state_of(std::span<const SequenceRows> chosen) const {
    const auto batches = inputs_.batches();
    BlockState state;
    state.hidden = gather(chosen, [&](std::size_t b) -> const MatrixF& {
      return batches[b].state.hidden;
    });
    const auto& carried = batches[chosen.front().batch].state.carried;
    for (std::size_t c = 0; c < carried.size(); ++c) {
      state.carried.emplace_back();
      if (carried[c].rows.empty()) continue;
      state.carried[c].rows =
          gather(chosen, [&](std::size_t b) -> const MatrixF& {
            return batches[b].state.carried[c].rows;
          });
    }
    return state;
  }

  // dL/dW_q of these sequences.
  void run_backward(std::span<const std::size_t> drawn) {
    std::vector<SequenceRows> chosen;
    std::vector<Segment> segments;
    for (const std::size_t s : drawn) {
      chosen.push_back(sequences_[s]);
      segments.push_back({.rows = sequences_[s].rows});
    }
    BlockState state = state_of(chosen);
    const MatrixF target = gather(
        chosen, [&](std::size_t b) -> const MatrixF& { return targets_[b]; });
    BlockPass pass = block_.run_keeping(segments, state, *job_.pool);
    (void)square_sum_and_gradient(state.hidden, target, *job_.pool);
    StreamGradient stream{.hidden = std::move(state.hidden)};
    block_.run_backward(pass, segments, reversible_, own_, stream, *job_.pool);
  }

  const BlockRoundingJob& job_;
  const BlockSpec& spec_;
  const CalibrationStates& inputs_;
  std::vector<SequenceRows> sequences_;
  std::vector<MatrixF> targets_;  // [batches]
  Block block_;
  std::vector<RoundedLinear*> learning_;  // [linears]; null: stays as it is
  std::vector<ReversibleLinear*> reversible_;  // [linears]
  const SignedRoundingConfig* config_ = nullptr;
  BlockGradients own_;
};

}  // namespace

bool wants_block_rounding(const StagePlan& plan, const Architecture& arch,
                          std::size_t layer) {
  for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
    if (learns_in_block(treatment_of(plan, arch, layer, l))) return true;
  }
  return false;
}

bool wants_block_rounding(const StagePlan& plan, const Architecture& arch) {
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    if (wants_block_rounding(plan, arch, layer)) return true;
  }
  return false;
}

std::optional<StagePlan> start_plan(const StagePlan& plan,
                                    const Architecture& arch,
                                    std::size_t layer) {
  std::map<std::string, std::optional<QuantizeStage>> stages;
  for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
    const LinearTreatment treatment = treatment_of(plan, arch, layer, l);
    if (!learns_in_block(treatment)) continue;
    const QuantizeConfig& config = treatment.quantize->config;
    const auto start = method_of(config).start(config);
    if (!start) continue;
    QuantizeStage stage = *treatment.quantize;
    stage.config = *start;
    stages[arch.linear_name(layer, l)] = std::move(stage);
  }
  if (stages.empty()) return std::nullopt;
  StagePlan with = plan;
  with.assign(std::move(stages));
  return with;
}

BlockRounding learn_block_rounding(const BlockRoundingJob& job,
                                   const DenseBlock& block,
                                   const CalibrationStates& inputs,
                                   const CalibrationStates& reference) {
  BlockLearner learner(job, block, inputs);
  learner.set_targets(block, reference);
  return learner.learn();
}

}  // namespace llmpress
