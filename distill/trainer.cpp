#include "distill/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "distill/training_evaluation.h"

namespace llmpress {
namespace {

constexpr std::size_t kMostDivergences = 3;
constexpr double kRunningShare = 0.9;
// A jump of less than this is noise, however small the loss.
constexpr double kSmallestJump = 0.5;  // nats

std::size_t or_tenth(std::size_t given, std::size_t steps) {
  return given != 0 ? given : std::max<std::size_t>(1, steps / 10);
}

class Trainer {
 public:
  Trainer(const TrainingJob& job, ThreadPool& pool)
      : job_(job),
        config_(job.config),
        pool_(pool),
        steps_(wanted_steps(job.config, *job.data)),
        evaluate_every_(or_tenth(config_.evaluate_every, steps_)),
        save_every_(config_.checkpoint_every != 0 ? config_.checkpoint_every
                                                  : evaluate_every_),
        parameters_(job.model->parameters()) {
    for (Parameter& own : job.objective->parameters()) {
      parameters_.push_back(std::move(own));
    }
    optimizer_.emplace(parameters_, config_);
    progress_.domains = first_states(job.domains);
  }

  TrainingResult run() {
    TrainingResult result{.steps = steps_};
    if (load("last")) {
      log(formatted("training goes on after step {} of {}", progress_.step,
                    steps_));
    } else {
      const LossTerms start = evaluate();
      if (!std::isfinite(start.total)) {
        fail(ErrorCode::kNumeric,
             "the loss before training is not finite: nothing to learn from");
      }
      progress_.curve.push_back(
          {.loss = start, .evaluation = start, .domains = domain_points()});
      save("last");
    }
    result.before = progress_.curve.front().loss;
    started_ = std::chrono::steady_clock::now();
    first_step_ = progress_.step;
    while (progress_.step < steps_ && !is_stale()) run_step();
    result.stopped_early = progress_.step < steps_;
    finish(result);
    result.progress = std::move(progress_);
    return result;
  }

 private:
  void log(const std::string& line) const {
    if (job_.log) job_.log(line);
  }

  bool is_stale() const {
    return config_.patience != 0 && progress_.stale >= config_.patience;
  }

  void save(const std::string& name) {
    job_.store->save(name, progress_, parameters_, optimizer_->states());
  }

  bool load(const std::string& name) {
    if (!job_.store->load(name, progress_, parameters_, optimizer_->states())) {
      return false;
    }
    job_.model->values_changed(pool_);
    return true;
  }

  double rate(std::size_t step) const {
    const auto warmup = static_cast<std::size_t>(
        std::llround(config_.warmup * static_cast<double>(steps_)));
    return progress_.rate_factor *
           static_cast<double>(learning_rate_at(
               {.peak = static_cast<float>(config_.learning_rate),
                .decay = config_.decay,
                .warmup_steps = warmup,
                .total_steps = steps_,
                .minimum_fraction = static_cast<float>(config_.minimum)},
               step - 1));
  }

  LossTerms add_gradients(std::size_t step) {
    job_.model->clear_gradients(pool_);
    for (const Parameter& own : job_.objective->parameters()) {
      std::ranges::fill(own.gradient, 0.0f);
    }
    LossTerms sum;
    drawn_ = progress_.domains;
    const double each = 1.0 / static_cast<double>(config_.accumulation);
    for (std::size_t pass = 0; pass < config_.accumulation; ++pass) {
      const std::size_t first =
          ((step - 1) * config_.accumulation + pass) * config_.batch_size;
      const TrainingBatch batch =
          job_.domains.empty()
              ? job_.data->shuffled(config_.seed, first, config_.batch_size)
              : draw_batch(job_.domains, config_.seed, first,
                           config_.batch_size, drawn_);
      sum +=
          job_.objective->run(*job_.model, batch, each, Gradients::kAdd, pool_)
              .scaled(each);
    }
    return sum;
  }

  bool is_jump(double loss, double usual) const {
    if (!std::isfinite(loss)) return true;
    return usual > 0 &&
           loss > config_.divergence_factor * usual + kSmallestJump;
  }

  double last_evaluation() const {
    for (std::size_t i = progress_.curve.size(); i-- > 0;) {
      const auto& evaluation = progress_.curve[i].evaluation;
      if (evaluation) return evaluation->total;
    }
    return 0;
  }

  void run_step() {
    const std::size_t step = progress_.step + 1;
    const LossTerms loss = add_gradients(step);
    // What the student wrote itself is another kind of text: of its loss no
    // jump is told.
    const bool usual = loss.on_policy == 0;
    if (is_jump(loss.total, usual ? progress_.running_loss : 0)) {
      return go_back(step, formatted("loss {} after {}", loss.total,
                                     progress_.running_loss));
    }
    // Now the weights of the step before are known to be sound.
    if (progress_.step != 0 && progress_.step % save_every_ == 0) save("last");
    const double learning_rate = rate(step);
    const double norm = optimizer_->step(step, learning_rate, pool_);
    if (!std::isfinite(norm)) {
      return go_back(step, "a gradient that is not finite");
    }
    job_.model->values_changed(pool_);
    progress_.step = step;
    progress_.domains = drawn_;
    if (usual) add_to_running_loss(loss.total);
    progress_.curve.push_back({.step = step,
                               .loss = loss,
                               .learning_rate = learning_rate,
                               .gradient_norm = norm});
    tell(loss);
    if (step % evaluate_every_ == 0 || step == steps_) judge();
  }

  void add_to_running_loss(double loss) {
    double& running = progress_.running_loss;
    running = running > 0 ? kRunningShare * running + (1 - kRunningShare) * loss
                          : loss;
  }

  void judge() {
    const LossTerms found = evaluate();
    const double before = last_evaluation();
    if (is_jump(found.total, before)) {
      return go_back(progress_.step, formatted("evaluated loss {} after {}",
                                               found.total, before));
    }
    progress_.curve.back().evaluation = found;
    if (!job_.domains.empty()) {
      reweight(job_.domains, domain_losses_, job_.domain_rate,
               progress_.domains);
      progress_.curve.back().domains = domain_points();
    }
    log(formatted("step {} of {}: loss {:.4f}, {} {:.4f}", progress_.step,
                  steps_, progress_.curve.back().loss.total,
                  evaluates_held_out(job_) ? "held out" : "first sequences",
                  found.total));
    if (progress_.best && found.total >= *progress_.best) {
      ++progress_.stale;
      return;
    }
    progress_.best = found.total;
    progress_.best_step = progress_.step;
    progress_.stale = 0;
    if (config_.patience != 0) save("best");
  }

  void go_back(std::size_t step, const std::string& why) {
    const std::size_t before = progress_.divergences;
    const double factor = progress_.rate_factor / 2;
    if (!load("last")) {
      fail(ErrorCode::kIo, "the checkpoint to go back to is gone");
    }
    progress_.divergences = before + 1;
    progress_.rate_factor = factor;
    const std::string note = formatted(
        "step {}: {}; back to step {} with a learning rate of {} of the given "
        "one",
        step, why, progress_.step, factor);
    progress_.notes.push_back(note);
    log(note);
    if (progress_.divergences <= kMostDivergences) {
      save("last");
      return;
    }
    fail(ErrorCode::kNumeric,
         "training diverged {} times, the last time at step {} ({}): use a "
         "'learning_rate' below {}",
         progress_.divergences, step, why,
         config_.learning_rate * progress_.rate_factor);
  }

  LossTerms evaluate() {
    EvaluatedLosses found = evaluated_losses(job_, pool_);
    domain_losses_ = std::move(found.domains);
    return found.all;
  }

  // As the last evaluation found them.
  std::vector<DomainPoint> domain_points() const {
    std::vector<DomainPoint> points;
    for (std::size_t d = 0; d < domain_losses_.size(); ++d) {
      points.push_back(
          {.loss = domain_losses_[d], .weight = progress_.domains[d].weight});
    }
    return points;
  }

  void tell(const LossTerms& loss) const {
    const std::chrono::duration<double> taken =
        std::chrono::steady_clock::now() - started_;
    const double tokens = static_cast<double>(
        (progress_.step - first_step_) * config_.accumulation *
        config_.batch_size * config_.sequence_length);
    report(job_.progress, {"train", progress_.step, steps_,
                           formatted("loss {:.4f}, {:.0f} tokens/s", loss.total,
                                     tokens / std::max(1e-9, taken.count()))});
  }

  void finish(TrainingResult& result) {
    if (config_.patience != 0 && progress_.best &&
        progress_.best_step != progress_.step) {
      const TrainingProgress whole = progress_;
      if (load("best")) {
        progress_ = whole;
        progress_.notes.push_back(
            formatted("the weights are those after step {}, the best",
                      progress_.best_step));
      }
    }
    result.after = evaluate();
    if (job_.keeps_end) save("last");
  }

  const TrainingJob& job_;
  const TrainConfig& config_;
  ThreadPool& pool_;
  std::size_t steps_, evaluate_every_, save_every_;
  std::vector<Parameter> parameters_;
  std::optional<ParameterOptimizer> optimizer_;
  TrainingProgress progress_{};
  std::vector<DomainState> drawn_{};  // when the step that runs is done
  std::vector<double> domain_losses_{};
  std::chrono::steady_clock::time_point started_{};
  std::size_t first_step_ = 0;
};

}  // namespace

std::size_t wanted_steps(const TrainConfig& config, const TrainingData& data) {
  if (config.steps != 0) return config.steps;
  const auto step = static_cast<double>(
      config.batch_size * config.accumulation * config.sequence_length);
  const double tokens =
      config.tokens != 0 ? static_cast<double>(config.tokens)
                         : config.epochs * static_cast<double>(data.tokens());
  return std::max<std::size_t>(
      1, static_cast<std::size_t>(std::ceil(tokens / step)));
}

TrainingResult train(const TrainingJob& job, ThreadPool& pool) {
  check(job.config);
  const std::size_t wanted = job.config.batch_size * job.config.accumulation;
  for (const TrainingDomain& domain : job.domains) {
    if (domain.data->sequences() != 0 &&
        (domain.held_out == nullptr || domain.held_out->sequences() != 0)) {
      continue;
    }
    fail(ErrorCode::kInvalidInput,
         "{}: the text or its held-out text is shorter than one sequence of {} "
         "tokens",
         domain.name, domain.data->sequence_length());
  }
  if (job.data->sequences() < wanted) {
    fail(ErrorCode::kInvalidInput,
         "the training text has {} sequences of {} tokens, a step wants {}: "
         "give more text or a smaller 'batch_size' or 'sequence_length'",
         job.data->sequences(), job.data->sequence_length(), wanted);
  }
  if (job.held_out != nullptr && job.held_out->sequences() == 0) {
    fail(ErrorCode::kInvalidInput,
         "the held-out text is shorter than one sequence of {} tokens",
         job.held_out->sequence_length());
  }
  return Trainer(job, pool).run();
}

}  // namespace llmpress
