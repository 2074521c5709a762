#include "compress/pipeline/run/block_rounding.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <variant>

#include "compress/calibration/calibration_sequences.h"
#include "compress/core/formatted.h"
#include "compress/model/training/trainable_linear.h"
#include "compress/pipeline/run/norm_transformation.h"
#include "compress/pipeline/run/rounded_linear.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

constexpr std::size_t kNumbersPerTask = 1 << 14;

bool learns_in_block(const LinearTreatment& treatment) {
  return treatment.quantize != nullptr &&
         method_of(treatment.quantize->config).block_wise();
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

class BlockLearner {
 public:
  BlockLearner(const BlockRoundingJob& job, const DenseBlock& block,
               const CalibrationStates& inputs)
      : job_(job),
        spec_(job.arch->block(job.layer)),
        inputs_(inputs),
        sequences_(sequences_of(inputs)),
        block_(runner_of(*job.arch, job.layer, block, {.isa = job.isa})) {
    own_.norms.resize(spec_.norms.size());
    own_.parameters.resize(spec_.parameters.size());
    for (const DenseLinear& linear : block.linears) {
      weights_.push_back(linear.W);
    }
    for (std::size_t l = 0; l < spec_.linears.size(); ++l) {
      add_linear(l, block.runnable(l));
    }
    if (schedule_->transformation_rate > 0) add_transformations(block);
  }

  void set_targets(const DenseBlock& block,
                   const CalibrationStates& reference) {
    const Block whole =
        runner_of(*job_.arch, job_.layer, block, {.isa = job_.isa});
    for (const CalibrationBatch& batch : reference.batches()) {
      BlockState state = batch.state;
      whole.run(batch.segments, state, *job_.pool);
      targets_.push_back(std::move(state.hidden));
    }
  }

  BlockRounding learn() {
    BlockRounding start{.weights = packed(), .loss_before = loss()};
    SequenceOrder order(sequences_.size(), schedule_->batch_size,
                        schedule_->seed);
    for (std::size_t i = 0; i < schedule_->iterations; ++i) {
      run_backward(order.draw());
      step(i);
    }
    const double learned = loss();
    // Also where it is no number.
    if (!(learned < start.loss_before)) {
      start.loss_after = start.loss_before;
      return start;
    }
    return {.weights = packed(),
            .moved = moved(),
            .loss_before = start.loss_before,
            .loss_after = learned};
  }

 private:
  // A norm whose scales move into the Linears behind it.
  struct Transformed {
    const ScaleGroup* group = nullptr;
    std::size_t norm = 0;  // of BlockSpec::norms
    NormTransformation transformation;
  };

  void add_linear(std::size_t l, LinearWeights stored) {
    const LinearTreatment treatment =
        treatment_of(*job_.plan, *job_.arch, job_.layer, l);
    std::unique_ptr<LinearKernel> kernel;
    if (!learns_in_block(treatment)) {
      auto frozen = std::make_unique<FrozenLinear>(std::move(stored), job_.isa);
      learning_.push_back(nullptr);
      reversible_.push_back(frozen.get());
      kernel = std::move(frozen);
    } else {
      check(job_.arch->linear_name(job_.layer, l), treatment, stored);
      const MatrixF& W = weights_[l];
      auto rounded = std::make_unique<RoundedLinear>(
          weight_of(l, treatment.quantize->config), W.rows(), W.cols(),
          std::move(stored.bias), *job_.pool);
      learning_.push_back(rounded.get());
      reversible_.push_back(rounded.get());
      kernel = std::move(rounded);
    }
    block_.wrap_linear(
        l, [&](std::unique_ptr<LinearKernel>) { return std::move(kernel); });
  }

  std::unique_ptr<BlockWeight> weight_of(std::size_t l,
                                         const QuantizeConfig& config) const {
    const GroupedIntWeight* const start =
        job_.start == nullptr
            ? nullptr
            : std::get_if<GroupedIntWeight>(&job_.start->linears[l].weight);
    return method_of(config).learn_in_block({.W = weights_[l].view(),
                                             .config = &config,
                                             .start = start,
                                             .pool = job_.pool});
  }

  void check(const std::string& name, const LinearTreatment& treatment,
             const LinearWeights& stored) {
    const QuantizeConfig& config = treatment.quantize->config;
    if (treatment.prune != nullptr) {
      fail(ErrorCode::kUnsupported,
           "{}: method '{}' does not keep the zeros of pruning; quantize it by "
           "another one",
           name, config.method);
    }
    if (stored.input_hadamard != 0) {
      fail(ErrorCode::kUnsupported,
           "{}: its input is rotated at run time, which method '{}' cannot "
           "learn through",
           name, config.method);
    }
    const BlockSchedule schedule = method_of(config).schedule(config);
    if (schedule_ && (method_ != config.method || *schedule_ != schedule)) {
      fail(ErrorCode::kInvalidArgument,
           "{}: method '{}' learns a block by one set of settings; another "
           "Linear of the block has others",
           name, config.method);
    }
    method_ = config.method;
    schedule_ = schedule;
  }

  // Of the norms in front of Linears that all learn.
  void add_transformations(const DenseBlock& block) {
    for (const ScaleGroup& group : spec_.scale_groups) {
      if (group.source_norm.empty() ||
          !std::ranges::all_of(group.consumers, [&](std::size_t c) {
            return learning_[c] != nullptr;
          })) {
        continue;
      }
      std::vector<MatrixF*> scaled;
      for (const std::size_t c : group.consumers) {
        scaled.push_back(&weights_[c]);
      }
      const NormWeights& norm = block.norms.at(group.source_norm);
      const auto found =
          std::ranges::find(spec_.norms, group.source_norm, &NormSpec::name);
      const auto n = static_cast<std::size_t>(found - spec_.norms.begin());
      own_.norms[n].gain.resize(norm.gain.size());
      own_.norms[n].bias.resize(norm.bias.size());
      transformed_.push_back(
          {&group, n, NormTransformation(norm, std::move(scaled))});
    }
  }

  void step(std::size_t iteration) {
    std::vector<ConstMatrixView> gradients(learning_.size());
    for (std::size_t l = 0; l < learning_.size(); ++l) {
      if (learning_[l] != nullptr) {
        gradients[l] = learning_[l]->step(iteration, *job_.pool);
      }
    }
    const auto rate =
        static_cast<float>(schedule_->transformation_rate *
                           falling_share(iteration, schedule_->iterations));
    for (Transformed& t : transformed_) {
      std::vector<ConstMatrixView> D;
      for (const std::size_t c : t.group->consumers) D.push_back(gradients[c]);
      NormGradients& d = own_.norms[t.norm];
      t.transformation.step(D, d, iteration, rate, *job_.pool);
      std::ranges::fill(d.gain, 0.0f);
      std::ranges::fill(d.bias, 0.0f);
      block_.replace_norm(t.group->source_norm, t.transformation.norm());
    }
    for (RoundedLinear* const linear : learning_) {
      if (linear != nullptr) linear->round(*job_.pool);
    }
  }

  std::vector<std::optional<GroupedIntWeight>> packed() const {
    std::vector<std::optional<GroupedIntWeight>> all;
    for (const RoundedLinear* const linear : learning_) {
      all.emplace_back();
      if (linear != nullptr) all.back() = linear->weight().pack(*job_.pool);
    }
    return all;
  }

  std::vector<MovedScales> moved() const {
    std::vector<MovedScales> all;
    for (const Transformed& t : transformed_) {
      const auto scales = t.transformation.scales();
      all.push_back({t.group, {scales.begin(), scales.end()}});
    }
    return all;
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

  // dL/dW_q of these sequences, and of what norms multiply by.
  void run_backward(std::span<const std::size_t> drawn) {
    std::vector<SequenceRows> chosen;
    std::vector<Segment> segments;
    for (const std::size_t s : drawn) {
      chosen.push_back(sequences_[s]);
      segments.push_back({.rows = sequences_[s].rows});
    }
    BlockState state = gather_state(chosen, inputs_);
    const MatrixF target = gather(chosen, targets_);
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
  std::vector<MatrixF> weights_;  // [linears], with the scales moved into them
  Block block_;
  std::vector<RoundedLinear*> learning_;  // [linears]; null: stays as it is
  std::vector<ReversibleLinear*> reversible_;  // [linears]
  std::vector<Transformed> transformed_;
  std::string method_;
  std::optional<BlockSchedule> schedule_;
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
    const QuantizerMethod& method = method_of(config);
    if (method.start == nullptr) continue;
    const auto start = method.start(config);
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

std::size_t block_rounding_bytes(const StagePlan& plan,
                                 const Architecture& arch,
                                 std::size_t sequence_tokens) {
  // In float32: W where scales may move, what it learns, W_q, its gradient, and
  // two moments of an optimizer.
  constexpr std::size_t kCopies = 6;
  std::size_t most = 0;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const BlockSpec& spec = arch.block(layer);
    std::size_t weights = 0, columns = 0, batch = 0;
    for (std::size_t l = 0; l < spec.linears.size(); ++l) {
      const LinearTreatment treatment = treatment_of(plan, arch, layer, l);
      if (!learns_in_block(treatment)) continue;
      const QuantizeConfig& config = treatment.quantize->config;
      weights += spec.linears[l].out * spec.linears[l].in;
      batch = method_of(config).schedule(config).batch_size;
    }
    for (const ValueSpec& value : spec.values) columns += value.width;
    // Every value of the batch, and its gradient.
    most = std::max(most,
                    kCopies * weights + 2 * columns * batch * sequence_tokens);
  }
  return most * sizeof(float);
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
