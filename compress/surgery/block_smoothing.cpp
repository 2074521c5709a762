#include "compress/surgery/block_smoothing.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "compress/calibration/calibration_sequences.h"
#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/model/facts.h"
#include "quantizers/method.h"
#include "quantizers/scaled_consumers.h"

namespace llmpress {
namespace {

// How a group is to be scaled, and for which grid.
struct GroupTask {
  const QuantizerMethod* scaling = nullptr;
  QuantizeConfig config{};
};

// Within an expert no scales are moved: its tokens are not those of the others.
bool applies(const QuantizerMethod& scaling, const BlockSpec& block,
             const ScaleGroup& group) {
  if (!group.source_norm.empty()) return true;
  const StageSpec& stage =
      block.stages[block.linears[group.consumers.front()].stage];
  return scaling.scales_into_linears && stage.groups == 1;
}

std::vector<const QuantizeStage*> stages_of(const StagePlan& plan,
                                            const Architecture& arch,
                                            std::size_t layer,
                                            const ScaleGroup& group) {
  std::vector<const QuantizeStage*> stages;
  for (const std::size_t consumer : group.consumers) {
    if (arch.block(layer).linears[consumer].role == LinearRole::kRouter) {
      continue;  // takes the scales, but is not rounded
    }
    stages.push_back(treatment_of(plan, arch, layer, consumer).quantize);
  }
  return stages;
}

// The one stage that rounds all consumers of the group, or nullptr.
const QuantizeStage* covering_stage(const StagePlan& plan,
                                    const Architecture& arch, std::size_t layer,
                                    const ScaleGroup& group) {
  const auto stages = stages_of(plan, arch, layer, group);
  const bool one =
      !stages.empty() && std::ranges::count(stages, stages.front()) ==
                             static_cast<std::ptrdiff_t>(stages.size());
  return one ? stages.front() : nullptr;
}

// Whether the plan would move the scales of some consumer of the group.
bool wants_scales(const StagePlan& plan, const Architecture& arch,
                  std::size_t layer, const ScaleGroup& group) {
  const bool smooths = !plan.smoothing().empty();
  return std::ranges::any_of(
      stages_of(plan, arch, layer, group), [&](const QuantizeStage* stage) {
        return stage != nullptr &&
               (smooths || method_of(stage->config).moves_scales());
      });
}

// A `smooth` stage, or a `quantize` stage whose method scales, that covers all
// consumers of the group; the grid is that of their quantize stage.
std::optional<GroupTask> task_of(const StagePlan& plan,
                                 const Architecture& arch, std::size_t layer,
                                 const ScaleGroup& group) {
  const QuantizeStage* quantize = covering_stage(plan, arch, layer, group);
  if (quantize == nullptr) return std::nullopt;
  GroupTask task{.scaling = &method_of(quantize->config),
                 .config = quantize->config};
  if (!plan.smoothing().empty()) {
    const SmoothStage& smooth = *plan.smoothing().front();
    task.scaling = &method_of(smooth.config);
    copy_settings(task.scaling->settings, smooth.config, task.config);
    if (smooth.weights) task.config.weights = *smooth.weights;
  }
  if (!task.scaling->moves_scales() ||
      !applies(*task.scaling, arch.block(layer), group)) {
    return std::nullopt;
  }
  return task;
}

// Mean squared difference of two matrices of the same shape.
double mean_squared_difference(const MatrixF& a, const MatrixF& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d =
        static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]);
    sum += d * d;
  }
  return sum / static_cast<double>(std::max<std::size_t>(a.size(), 1));
}

// And those that the worse candidates are told by: the beginnings of the same
// sequences.
constexpr std::size_t kScreeningTokens = 128;

// Sequences, and what they are before every stage of the block.
struct Sample {
  std::vector<Segment> segments{};
  std::vector<BlockState> entries{};  // [stages]
};

class BlockSmoother {
 public:
  BlockSmoother(const SmoothingJob& job, DenseBlock& block,
                const CalibrationStates& states)
      : job_(job),
        spec_(job.arch->block(job.layer)),
        block_(block),
        states_(states) {}

  std::vector<std::string> run() {
    collect();
    std::vector<std::string> notes;
    for (const ScaleGroup& group : spec_.scale_groups) {
      const auto task = task_of(*job_.plan, *job_.arch, job_.layer, group);
      if (!task) continue;
      if (is_rotated(group)) {
        notes.push_back(describe(group, *task, -1, -1) +
                        ": not moved, a rotation at inference lies between");
      } else {
        notes.push_back(smooth(group, *task));
      }
    }
    return notes;
  }

 private:
  // Scales of channels do not pass a rotation of them.
  bool is_rotated(const ScaleGroup& group) const {
    return std::ranges::any_of(group.consumers, [&](std::size_t c) {
      return block_.linears[c].stored.input_hadamard != 0;
    });
  }

  std::size_t stage_of(const ScaleGroup& group) const {
    return spec_.linears[group.consumers.front()].stage;
  }

  // What the searches of the groups that read the stage's input ask for.
  StatsNeeds needs_of(const StageSpec& stage) const {
    StatsNeeds needs{.channel_moments = true, .sample_rows = true};
    for (const ScaleGroup& group : spec_.scale_groups) {
      if (&spec_.stages[stage_of(group)] != &stage) continue;
      const auto task = task_of(*job_.plan, *job_.arch, job_.layer, group);
      if (task) needs = needs | task->scaling->scale_needs(task->config);
    }
    return needs;
  }

  // About so many tokens, in whole batches, do for every search of the block.
  std::size_t statistics_tokens() const {
    std::size_t most = 0;
    for (const ScaleGroup& group : spec_.scale_groups) {
      const auto task = task_of(*job_.plan, *job_.arch, job_.layer, group);
      if (!task) continue;
      const auto tokens_of = task->scaling->scale_tokens;
      const std::size_t tokens =
          tokens_of == nullptr ? 0 : tokens_of(task->config);
      if (tokens == 0) return states_.tokens();
      most = std::max(most, tokens);
    }
    return std::min(most, states_.tokens());
  }

  // Batches of all ranks, evenly spread, that have as many.
  std::vector<char> statistics_batches() const {
    const std::size_t all = states_.all_batches();
    const std::size_t wanted = ceil_div(
        statistics_tokens() * all, std::max<std::size_t>(1, states_.tokens()));
    std::vector<char> chosen(all);
    for (std::size_t b = 0; b < all; ++b) {
      chosen[b] = (b + 1) * wanted / all != b * wanted / all;
    }
    return chosen;
  }

  // Sequences evenly spread over all, of about kSmoothingTokens tokens together;
  // with `tokens`, of each its beginning, so that so many remain.
  Sample take_sample(const Block& runner,
                     std::optional<std::size_t> tokens = {}) const {
    Sample sample;
    BlockState state = choose_rows(tokens, sample.segments);
    runner.begin(state, sample.segments, *job_.pool);
    for (std::size_t s = 0; s < spec_.stages.size(); ++s) {
      sample.entries.push_back(state);
      runner.run_stage(s, sample.segments, state, *job_.pool);
    }
    return sample;
  }

  BlockState choose_rows(std::optional<std::size_t> tokens,
                         std::vector<Segment>& segments) const {
    const std::vector<SequenceRows> all = sequences_of(states_);
    const std::size_t wanted =
        std::clamp<std::size_t>(kSmoothingTokens * all.size() /
                                    std::max<std::size_t>(1, states_.tokens()),
                                1, all.size());
    std::vector<SequenceRows> chosen;
    for (std::size_t s = 0; s < all.size(); ++s) {
      // Sequence s is taken where s * wanted / sequences grows.
      if ((s + 1) * wanted / all.size() == s * wanted / all.size()) continue;
      chosen.push_back(all[s]);
      std::size_t& rows = chosen.back().rows;
      if (tokens) {
        rows = std::min(rows, std::max<std::size_t>(1, *tokens / wanted));
      }
      segments.push_back({.rows = rows});
    }
    return gather_state(chosen, states_);
  }

  // Statistics of every stage's input in the block as it is, in one pass over
  // the batches.
  void collect() {
    const auto& stages = spec_.stages;
    const Block runner =
        runner_of(*job_.arch, job_.layer, block_, {.isa = job_.isa});
    const std::vector<char> chosen = statistics_batches();
    std::size_t tokens = 0;
    for (std::size_t b = 0; b < chosen.size(); ++b) {
      if (!chosen[b]) continue;
      for (const Segment& segment : states_.segments(b)) tokens += segment.rows;
    }
    const Ranks& ranks = states_.ranks();
    std::vector<InputStatsCollector> collectors;
    for (const StageSpec& stage : stages) {
      collectors.push_back(
          InputStatsCollector(stage.in, needs_of(stage), tokens, 512, ranks));
    }
    for (std::size_t round = 0; round < states_.rounds(); ++round) {
      const std::size_t b = round * ranks.size() + ranks.rank();
      if (b >= chosen.size() || !chosen[b]) {
        for (InputStatsCollector& c : collectors) c.add({}, *job_.pool);
        continue;
      }
      const CalibrationBatch& batch = states_.batches()[round];
      BlockState state = batch.state;
      runner.begin(state, batch.segments, *job_.pool);
      for (std::size_t s = 0; s < stages.size(); ++s) {
        collectors[s].add(state.stage_input.view(), *job_.pool);
        runner.run_stage(s, batch.segments, state, *job_.pool);
      }
    }
    sample_ = take_sample(runner);
    screening_ = take_sample(runner, kScreeningTokens);
    for (InputStatsCollector& collector : collectors) {
      stats_.push_back(collector.finish());
    }
  }

  std::string smooth(const ScaleGroup& group, const GroupTask& task) {
    Consumers consumers;
    for (const std::size_t c : group.consumers) {
      consumers.push_back(block_.linears[c].W.view());
    }
    const std::size_t stage = stage_of(group);
    const FoundScales found = task.scaling->find_scales(
        {.consumers = consumers,
         .stats = stats_[stage],
         .config = task.config,
         .module_objective =
             [&](ObjectiveTokens tokens) {
               return module_objective(
                   group, stage,
                   tokens == ObjectiveTokens::kAll ? sample_ : screening_);
             },
         .pool = *job_.pool,
         .ranks = states_.ranks()});
    fold_scales(group, found.s, block_);
    rescale_inputs(stage, found.s);
    return describe(group, task, found.identity_error, found.error);
  }

  // The error of the module that the group feeds, on a sample: the
  // attention's or the MLP's output where the input is a norm's, else the
  // consumer's own output (arXiv:2306.00978, Eq. 4: f is the block).
  OutputObjective module_objective(const ScaleGroup& group, std::size_t stage,
                                   const Sample& sample) {
    const std::size_t last =
        group.source_norm.empty() ? stage : end_of_step(stage);
    auto output = [this, stage, last, &sample](const Block& runner) {
      BlockState state = sample.entries[stage];
      // What the module adds to the stream, without the stream itself.
      std::ranges::fill(state.hidden.data(), 0.0f);
      for (std::size_t s = stage; s <= last; ++s) {
        runner.run_stage(s, sample.segments, state, *job_.pool);
      }
      return state.hidden;
    };
    auto runner = std::make_shared<Block>(
        runner_of(*job_.arch, job_.layer, block_, {.isa = job_.isa}));
    auto wanted = std::make_shared<MatrixF>(output(*runner));
    return [this, group, runner, wanted,
            output](const std::vector<MatrixF>& candidates) {
      for (std::size_t k = 0; k < candidates.size(); ++k) {
        const std::size_t c = group.consumers[k];
        runner->wrap_linear(c, [&](std::unique_ptr<LinearKernel>) {
          return make_viewing_kernel(candidates[k].view(),
                                     block_.linears[c].stored, job_.isa);
        });
      }
      return mean_squared_difference(output(*runner), *wanted);
    };
  }

  // The stage after which the stream has what the module adds to it.
  std::size_t end_of_step(std::size_t stage) const {
    for (const StreamStep& step : stream_steps(spec_)) {
      if (stage <= step.last) return step.last;
    }
    return spec_.stages.size() - 1;
  }

  // What was recorded of the stage's input, as it is from now on.
  void rescale_inputs(std::size_t stage, std::span<const float> s) {
    InputStats& stats = stats_[stage];
    for (auto* values :
         {&stats.abs_max, &stats.abs_mean, &stats.min, &stats.max}) {
      if (!values->empty()) unscale_in_place(*values, s);
    }
    stats.sample_rows = unscale_columns(stats.sample_rows.view(), s);
    if (!stats.second_moment.empty()) {
      stats.second_moment = unscale_columns(stats.second_moment.view(), s);
      unscale_rows_in_place(stats.second_moment.view(), s);
    }
    for (Sample* const sample : {&sample_, &screening_}) {
      MatrixF& input = sample->entries[stage].stage_input;
      input = unscale_columns(input.view(), s);
    }
  }

  std::string describe(const ScaleGroup& group, const GroupTask& task,
                       double before, double after) const {
    std::string source = group.source_norm;
    if (source.empty()) {
      source = spec_.linears[*group.source_linear].name;
    }
    std::string line = job_.arch->block_name(job_.layer) + ": " +
                       std::string(task.scaling->name) + " scales from " +
                       source;
    if (before > 0) {
      char text[64];
      std::snprintf(text, sizeof(text), ", rounding error %.3g -> %.3g", before,
                    after);
      line += text;
    }
    return line;
  }

  const SmoothingJob& job_;
  const BlockSpec& spec_;
  DenseBlock& block_;
  const CalibrationStates& states_;
  std::vector<InputStats> stats_;  // [stages]
  Sample sample_{}, screening_{};
};

}  // namespace

void unscale_norm_in_place(NormWeights& norm, std::span<const float> s) {
  for (float& gain : norm.gain) gain += norm.offset;
  unscale_in_place(norm.gain, s);
  for (float& gain : norm.gain) gain -= norm.offset;
  if (!norm.bias.empty()) unscale_in_place(norm.bias, s);
}

void fold_scales(const ScaleGroup& group, std::span<const float> s,
                 DenseBlock& block) {
  for (const std::size_t c : group.consumers) {
    DenseLinear& linear = block.linears[c];
    linear.W = scale_columns(linear.W.view(), s);
    linear.changed = true;
  }
  if (!group.source_norm.empty()) {
    unscale_norm_in_place(block.norms.at(group.source_norm), s);
    return;
  }
  DenseLinear& source = block.linears[*group.source_linear];
  unscale_rows_in_place(source.W.view(), s);
  std::vector<float>& bias = source.stored.bias;
  if (!bias.empty()) {
    unscale_rows_in_place({bias, bias.size(), 1}, s);
  }
  source.changed = true;
}

bool wants_smoothing(const StagePlan& plan, const Architecture& arch,
                     std::size_t layer) {
  return std::ranges::any_of(
      arch.block(layer).scale_groups, [&](const ScaleGroup& group) {
        return task_of(plan, arch, layer, group).has_value();
      });
}

bool searches_scales(const StagePlan& plan, const Architecture& arch,
                     std::size_t layer) {
  return std::ranges::any_of(
      arch.block(layer).scale_groups, [&](const ScaleGroup& group) {
        const auto task = task_of(plan, arch, layer, group);
        return task && task->scaling->scales_into_linears;
      });
}

std::vector<std::string> unscaled_groups(const StagePlan& plan,
                                         const Architecture& arch) {
  std::map<std::string, std::size_t> unscaled;  // names -> blocks
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const BlockSpec& block = arch.block(layer);
    for (const ScaleGroup& group : block.scale_groups) {
      if (!wants_scales(plan, arch, layer, group) ||
          covering_stage(plan, arch, layer, group) != nullptr) {
        continue;
      }
      std::string names;
      for (const std::size_t c : group.consumers) {
        names += (names.empty() ? "" : ", ") + block.linears[c].name;
      }
      ++unscaled[names];
    }
  }
  std::vector<std::string> sentences;
  for (const auto& [names, blocks] : unscaled) {
    sentences.push_back(
        formatted("no scales are moved into {} in {} blocks: they are not all "
                  "rounded by one stage",
                  names, blocks));
  }
  return sentences;
}

std::vector<std::string> smooth_block_in_place(
    const SmoothingJob& job, DenseBlock& block,
    const CalibrationStates& states) {
  return BlockSmoother(job, block, states).run();
}

}  // namespace llmpress
