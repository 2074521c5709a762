#include "compress/pipeline/run/block_compressor.h"

#include <algorithm>

#include "compress/core/formatted.h"
#include "compress/pipeline/run/block_rounding.h"
#include "compress/pipeline/run/memory_model.h"
#include "compress/pipeline/run/outcome_bytes.h"
#include "compress/pipeline/run/rank_plan.h"
#include "compress/surgery/block_smoothing.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

Block runner_of(const BlockJob& job, const DenseBlock& block,
                const BlockOptions& options) {
  if (!block.unread) return runner_of(*job.arch, job.layer, block, options);
  const auto read = [&](std::size_t l) {
    return read_block_linear(*job.source, *job.arch, job.layer, l);
  };
  return Block(*job.arch, job.layer,
               {.norms = block.norms, .parameters = block.parameters}, read,
               options);
}

// The calibration tokens and the block that they run through.
struct Stream {
  CalibrationStates* states = nullptr;
  std::optional<Block> block{};
  KvRanges kv_ranges{};  // of what ran so far

  void begin(const BlockJob& job, const DenseBlock& weights) {
    if (states == nullptr) return;
    block =
        runner_of(job, weights,
                  {.isa = job.isa,
                   .kv_ranges = job.plan->kv_cache() ? &kv_ranges : nullptr});
    if (job.experts == ExpertPolicy::kAllTokens) block->route_to_all_experts();
    states->begin(*block, *job.pool);
  }
  void run_stage(std::size_t stage, ThreadPool& pool) {
    if (states != nullptr) states->run_stage(*block, stage, pool);
  }
};

// Carries a block through its stages. Where the input of a stage is not kept for
// all calibration tokens (kept_inputs.h), the stage before it is left pending and
// runs again, batch by batch.
class StagedBlock {
 public:
  // `uncompressed`: the block as the reference runs it; null: as it is.
  StagedBlock(const BlockJob& job, DenseBlock block,
              const DenseBlock* uncompressed, BlockRounding rounding,
              CalibrationStreams streams)
      : job_(job),
        spec_(job.arch->block(job.layer)),
        block_(std::move(block)),
        rounding_(std::move(rounding)),
        stream_{.states = streams.compressed},
        reference_{.states = streams.reference} {
    stream_.begin(job, block_);
    reference_.begin(job, uncompressed == nullptr ? block_ : *uncompressed);
  }

  CompressedBlock run() {
    const auto& stages = spec_.stages;
    compressed_.weights.norms = block_.norms;
    compressed_.weights.parameters = block_.parameters;
    compressed_.norm_dtypes = block_.norm_dtypes;
    compressed_.weights.linears.resize(spec_.linears.size());
    compressed_.layers.resize(spec_.linears.size());
    for (std::size_t s = 0; s < stages.size(); ++s) {
      compress_stage(s);
      advance(s);
    }
    if (const QuantizeKvCacheStage* stage = job_.plan->kv_cache()) {
      compressed_.kv_scales =
          kv_scales(*stage, spec_, widest(stream_.kv_ranges, ranks()));
    }
    return std::move(compressed_);
  }

 private:
  void compress_stage(std::size_t s) {
    const StageSpec& stage = spec_.stages[s];
    const StatsNeeds needs = needs_of_stage(s);
    const std::size_t step = groups_at_once(spec_, stage, needs);
    for (std::size_t first = 0; first < stage.groups; first += step) {
      const GroupRange groups{first, std::min(step, stage.groups - first)};
      if (take_up(stage, groups)) continue;
      std::vector<InputStats> stats = collect(s, groups, needs);
      const bool together = solved_together(
          solve_work(*job_.plan, *job_.arch, job_.layer, s), ranks().size());
      const std::vector<std::size_t> rank =
          together ? std::vector<std::size_t>(spec_.linears.size())
                   : solvers(stage, groups);
      for (std::size_t g = 0; g < groups.count; ++g) {
        compress_group(stage, first + g, rank, together,
                       any(needs) ? &stats[g] : nullptr);
        if (any(needs)) stats[g] = {};
      }
      share(stage, groups, rank);
      const bool is_last =
          s + 1 == spec_.stages.size() && first + groups.count == stage.groups;
      // What is dear to find again, unless the block is finished with it.
      if (any(needs) && !is_last) put_by(stage, groups, rank);
    }
  }

  // Linears of these groups that an interrupted run finished, if it did all of
  // them.
  bool take_up(const StageSpec& stage, GroupRange groups) {
    if (job_.linears == nullptr) return false;
    bool finished = true;
    std::size_t count = 0;
    for (const std::size_t l : stage.linears) {
      if (!contains(groups, spec_.linears[l].group)) continue;
      ++count;
      if (finished && ranks().is_first()) finished = job_.linears->has(l);
    }
    if (ranks().broadcast(finished ? "all" : "").empty()) return false;
    for (const std::size_t l : stage.linears) {
      if (!contains(groups, spec_.linears[l].group)) continue;
      if (!ranks().is_spread()) {
        keep(l, job_.linears->load(l));
        continue;
      }
      const std::string bytes = ranks().broadcast(
          ranks().is_first() ? to_bytes(job_.linears->load(l)) : "");
      keep(l, outcome_from_bytes(bytes));
    }
    if (job_.on_note) {
      job_.on_note(formatted("resumed {} Linears of {} from an interrupted run",
                             count, job_.arch->block_name(job_.layer)));
    }
    return true;
  }

  // What this rank made.
  void put_by(const StageSpec& stage, GroupRange groups,
              const std::vector<std::size_t>& rank) const {
    if (job_.linears == nullptr) return;
    for (const std::size_t l : stage.linears) {
      if (!contains(groups, spec_.linears[l].group)) continue;
      if (rank[l] != ranks().rank()) continue;
      job_.linears->save(l, compressed_.weights.linears[l],
                         compressed_.layers[l]);
    }
  }

  const Ranks& ranks() const { return job_.ranks; }

  // The rank of each Linear of the block, where it is of these groups: all of
  // an expert's go to one.
  std::vector<std::size_t> solvers(const StageSpec& stage,
                                   GroupRange groups) const {
    std::vector<double> costs;
    std::vector<std::size_t> item(spec_.linears.size());
    std::vector<std::size_t> of_group(stage.groups, stage.linears.size());
    for (const std::size_t l : stage.linears) {
      const LinearSpec& linear = spec_.linears[l];
      if (!contains(groups, linear.group)) continue;
      const auto in = static_cast<double>(linear.in);
      std::size_t& shared = of_group[linear.group];
      if (stage.groups == 1 || shared == stage.linears.size()) {
        shared = costs.size();
        costs.push_back(0);
      }
      item[l] = shared;
      costs[shared] += static_cast<double>(linear.out) * in * in;
    }
    const std::vector<std::size_t> dealt = deal_out(costs, ranks().size());
    std::vector<std::size_t> rank(spec_.linears.size());
    for (const std::size_t l : stage.linears) {
      if (contains(groups, spec_.linears[l].group)) rank[l] = dealt[item[l]];
    }
    return rank;
  }

  static bool contains(GroupRange groups, std::size_t group) {
    return group >= groups.first && group < groups.first + groups.count;
  }

  // The Linears that read one input, those of this rank; or all of them, with
  // the other ranks, `rank` being the one whose result counts.
  void compress_group(const StageSpec& stage, std::size_t group,
                      const std::vector<std::size_t>& rank, bool together,
                      const InputStats* stats) {
    SharedInverse inverse(together ? ranks() : Ranks{});
    for (const std::size_t l : stage.linears) {
      const bool is_own = rank[l] == ranks().rank();
      if (spec_.linears[l].group != group || !(is_own || together)) continue;
      LinearOutcome outcome = compress(l, stats, inverse);
      if (!ranks().is_spread()) {
        keep(l, std::move(outcome));
      } else if (is_own) {
        own_[l] = std::move(outcome);
      }
    }
  }

  // All ranks get what each of them made.
  void share(const StageSpec& stage, GroupRange groups,
             const std::vector<std::size_t>& rank) {
    if (!ranks().is_spread()) return;
    for (const std::size_t l : stage.linears) {
      if (!contains(groups, spec_.linears[l].group)) continue;
      const bool is_own = rank[l] == ranks().rank();
      const std::string bytes = ranks().broadcast(
          is_own ? to_bytes(own_.at(l)) : std::string(), rank[l]);
      keep(l, is_own ? std::move(own_.at(l)) : outcome_from_bytes(bytes));
    }
    own_.clear();
  }

  LinearTreatment treatment(std::size_t linear) const {
    return treatment_of(*job_.plan, *job_.arch, job_.layer, linear);
  }

  double sparsity_of(const LinearTreatment& treatment) const {
    if (treatment.prune == nullptr) return 0;
    const auto allocated = job_.sparsities.find(treatment.prune);
    return allocated != job_.sparsities.end()
               ? allocated->second
               : treatment.prune->config.target_sparsity();
  }

  StatsNeeds needs_of_stage(std::size_t stage) const {
    StatsNeeds needs;
    if (stream_.states == nullptr) return needs;
    for (const std::size_t l : spec_.stages[stage].linears) {
      const LinearTreatment wanted = treatment(l);
      needs = needs | needs_of(wanted);
      if (wanted.quantize != nullptr) {
        needs.channel_moments = true;  // cheap; the report counts outliers
      }
    }
    return needs;
  }

  std::vector<InputStats> collect(std::size_t stage, GroupRange groups,
                                  const StatsNeeds& needs) {
    if (!any(needs)) return {};
    const CalibrationStates* reference =
        needs.reference_moment ? reference_.states : nullptr;
    if (pending_) {
      return stream_.states->collect_after(
          *stream_.block, stage - 1, groups, needs, *job_.pool, reference,
          reference != nullptr ? &*reference_.block : nullptr);
    }
    return stream_.states->collect(spec_.stages[stage], groups, needs,
                                   *job_.pool, reference);
  }

  bool is_starved(std::size_t l, const InputStats* stats) const {
    const StageSpec& stage = spec_.stages[spec_.linears[l].stage];
    return stats != nullptr && any(needs_of(treatment(l))) &&
           stage.groups > 1 && stats->tokens < job_.expert_min_tokens;
  }

  // An expert that calibration showed too few tokens, as the recipe says.
  LinearOutcome compress_starved(const LinearJob& starved, std::size_t tokens) {
    const std::string few = formatted(
        "{} calibration tokens were routed to it, fewer than expert_min_tokens "
        "{}",
        tokens, job_.expert_min_tokens);
    if (job_.experts == ExpertPolicy::kRaise) {
      fail(ErrorCode::kNumeric, "{}: {}", starved.name, few);
    }
    LinearJob job = starved;
    QuantizeStage quantize;
    PruneStage prune;
    job.stats = nullptr;
    if (job.treatment.quantize != nullptr) {
      quantize = *job.treatment.quantize;
      quantize.config = without_calibration(quantize.config);
      job.treatment.quantize = &quantize;
    }
    if (job.treatment.prune != nullptr) {
      prune = *job.treatment.prune;
      prune.config.method = PruneMethod::kMagnitude;
      job.treatment.prune = &prune;
    }
    LinearOutcome outcome = compress_linear(job, *job_.pool);
    outcome.report.notes.push_back(few + ": not calibrated");
    return outcome;
  }

  // A Linear that is of no more use here.
  DenseLinear take(std::size_t l) {
    if (!block_.unread) return std::move(block_.linears[l]);
    return load_dense_linear(*job_.source, *job_.arch, job_.layer, l,
                             *job_.pool);
  }

  const GroupedIntWeight* learned(std::size_t l) const {
    if (rounding_.weights.empty() || !rounding_.weights[l]) return nullptr;
    return &*rounding_.weights[l];
  }

  // Whether it can stay as it is stored while it is compressed.
  bool stays_stored(std::size_t l, const InputStats* stats) const {
    return block_.unread && learned(l) == nullptr && !is_starved(l, stats) &&
           compresses_by_rows(treatment(l), spec_.linears[l].in, stats);
  }

  LinearOutcome compress(std::size_t l, const InputStats* stats,
                         SharedInverse& inverse) {
    LinearJob job{.name = job_.arch->linear_name(job_.layer, l),
                  .treatment = treatment(l),
                  .stats = stats,
                  .importance = job_.importance,
                  .sparsity = sparsity_of(treatment(l)),
                  .learned = learned(l),
                  .inverse = &inverse};
    LinearOutcome outcome;
    if (stays_stored(l, stats)) {
      outcome = compress_rows(
          job, read_block_linear_rows(*job_.source, *job_.arch, job_.layer, l),
          *job_.pool);
    } else {
      const DenseLinear linear = take(l);
      job.linear = &linear;
      outcome = is_starved(l, stats) ? compress_starved(job, stats->tokens)
                                     : compress_linear(job, *job_.pool);
    }
    if (stats != nullptr) outcome.report.calibration_tokens = stats->tokens;
    return outcome;
  }

  void keep(std::size_t l, LinearOutcome outcome) {
    if (stream_.block) stream_.block->replace_linear(l, outcome.weights);
    if (job_.on_layer) job_.on_layer(outcome.report);
    compressed_.weights.linears[l] = std::move(outcome.weights);
    compressed_.layers[l] = std::move(outcome.report);
  }

  void run_stage(std::size_t stage) {
    stream_.run_stage(stage, *job_.pool);
    reference_.run_stage(stage, *job_.pool);
  }

  void advance(std::size_t stage) {
    if (stream_.states == nullptr) return;
    const auto& stages = spec_.stages;
    if (pending_) run_stage(stage - 1);
    pending_ = stage + 1 < stages.size() && any(needs_of_stage(stage + 1)) &&
               job_.kept.remakes(spec_, stage + 1, *job_.arch);
    if (!pending_) run_stage(stage);
  }

  const BlockJob& job_;
  const BlockSpec& spec_;
  DenseBlock block_;
  BlockRounding rounding_;
  Stream stream_, reference_;
  std::map<std::size_t, LinearOutcome> own_;  // until all ranks have them
  bool pending_ = false;  // the stage before the current one has not run
  CompressedBlock compressed_;
};

// What smoothing, if any, makes of the block.
DenseBlock smoothed(const BlockJob& job, DenseBlock block,
                    const CalibrationStates* states) {
  if (states == nullptr || !wants_smoothing(*job.plan, *job.arch, job.layer)) {
    return block;
  }
  if (block.unread) {
    block = load_dense_block(*job.source, *job.arch, job.layer, *job.pool);
  }
  for (const std::string& note : smooth_block_in_place({.arch = job.arch,
                                 .plan = job.plan,
                                 .layer = job.layer,
                                 .isa = job.isa,
                                 .pool = job.pool},
                                                       block, *states)) {
    if (job.on_note) job.on_note(note);
  }
  return block;
}

// What the Linears that learn start from, where it is not rounding to nearest.
std::optional<BlockWeights> start_of(const BlockJob& job,
                                     const DenseBlock& block,
                                     CalibrationStreams streams) {
  const auto plan = start_plan(*job.plan, *job.arch, job.layer);
  if (!plan) return std::nullopt;
  BlockJob start = job;
  start.plan = &*plan;
  start.on_layer = {};
  start.linears = nullptr;
  CalibrationStates compressed = *streams.compressed;
  CalibrationStates reference = *streams.reference;
  return StagedBlock(start, block, nullptr, {},
                     {.compressed = &compressed, .reference = &reference})
      .run()
      .weights;
}

// What Linears of the block learn together, if any does.
BlockRounding learned(const BlockJob& job, DenseBlock& block,
                      CalibrationStreams streams) {
  if (!wants_block_rounding(*job.plan, *job.arch, job.layer)) return {};
  if (block.unread) {
    block = load_dense_block(*job.source, *job.arch, job.layer, *job.pool);
  }
  const std::optional<BlockWeights> start = start_of(job, block, streams);
  BlockRounding rounding =
      learn_block_rounding({.arch = job.arch,
                            .plan = job.plan,
                            .layer = job.layer,
                            .isa = job.isa,
                            .pool = job.pool,
                            .start = start ? &*start : nullptr},
                           block, *streams.compressed, *streams.reference);
  if (job.on_note) {
    job.on_note(
        formatted("{}: mean squared error of the output {:.4g} at the start, "
                  "{:.4g} as learned",
                  job.arch->block_name(job.layer), rounding.loss_before,
                  rounding.loss_after));
  }
  return rounding;
}

}  // namespace

CompressedBlock compress_block(const BlockJob& job, DenseBlock block,
                               CalibrationStreams streams) {
  DenseBlock ready = smoothed(job, std::move(block), streams.compressed);
  BlockRounding rounding = learned(job, ready, streams);
  // What a block learns as a whole is learned anew as a whole.
  BlockJob staged = job;
  if (!rounding.weights.empty()) staged.linears = nullptr;
  if (rounding.moved.empty()) {
    return StagedBlock(staged, std::move(ready), nullptr, std::move(rounding),
                       streams)
        .run();
  }
  DenseBlock scaled = ready;
  for (const MovedScales& moved : rounding.moved) {
    fold_scales(*moved.group, moved.scales, scaled);
  }
  return StagedBlock(staged, std::move(scaled), &ready, std::move(rounding),
                     streams)
      .run();
}

void pass_block(const BlockJob& job, const BlockWeights& compressed,
                DenseBlock block, CalibrationStreams streams) {
  if (streams.reference != nullptr) {
    const DenseBlock ready =
        smoothed(job, std::move(block), streams.compressed);
    streams.reference->run(runner_of(job, ready, {.isa = job.isa}), *job.pool);
  }
  if (streams.compressed != nullptr) {
    streams.compressed->run(Block(*job.arch, job.layer, compressed, job.isa),
                            *job.pool);
  }
}

}  // namespace llmpress
