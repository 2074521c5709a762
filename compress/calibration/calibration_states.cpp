#include "compress/calibration/calibration_states.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace llmpress {
namespace {

constexpr std::size_t kSampleRows = 512;  // of a statistic

BlockState state_after(const Block& block, std::size_t stage,
                       const CalibrationBatch& batch, ThreadPool& pool) {
  BlockState copy = batch.state;
  block.run_stage(stage, batch.segments, copy, pool);
  return copy;
}

// The inputs of expert `group` in the uncompressed model, in the rows of its
// inputs X in the compressed one: see collect().
MatrixF paired_rows(ConstMatrixView X, const Routing& routing,
                    const BlockState& reference, std::size_t group) {
  const Routing& full = *reference.routing;
  MatrixF paired(X);
  std::size_t at = full.offsets[group];
  for (std::size_t r = 0; r < X.rows(); ++r) {
    const std::uint32_t token = routing.token[routing.offsets[group] + r];
    while (at < full.offsets[group + 1] && full.token[at] < token) ++at;
    if (at == full.offsets[group + 1]) break;
    if (full.token[at] != token) continue;
    std::ranges::copy(reference.stage_input.row(at), paired.row(r).begin());
  }
  return paired;
}

// One collector for each of some groups of a stage.
class GroupCollectors {
 public:
  GroupCollectors(const StageSpec& stage, GroupRange groups,
                  const StatsNeeds& needs, const CalibrationStates& states)
      : first_(groups.first) {
    for (std::size_t g = 0; g < groups.count; ++g) {
      collectors_.emplace_back(stage.in, needs, states.tokens(), kSampleRows,
                               states.ranks());
    }
  }

  // In a round in which this rank has no batch.
  void add_none(ThreadPool& pool) {
    for (InputStatsCollector& c : collectors_) c.add({}, pool);
  }

  void add(const BlockState& state, const BlockState* reference,
           ThreadPool& pool) {
    const ConstMatrixView X = state.stage_input.view();
    if (state.routing == nullptr) {
      collectors_[0].add(X, pool,
                         reference == nullptr
                             ? ConstMatrixView{}
                             : ConstMatrixView(reference->stage_input.view()));
      return;
    }
    const Routing& routing = *state.routing;
    for (std::size_t g = 0; g < collectors_.size(); ++g) {
      const std::size_t begin = routing.offsets[first_ + g];
      const std::size_t rows = routing.offsets[first_ + g + 1] - begin;
      const ConstMatrixView own = X.rows_slice(begin, rows);
      MatrixF full;
      if (reference != nullptr && rows != 0) {
        full = paired_rows(own, routing, *reference, first_ + g);
      }
      collectors_[g].add(own, pool, std::as_const(full).view());
    }
  }

  std::vector<InputStats> finish() {
    std::vector<InputStats> stats;
    for (InputStatsCollector& c : collectors_) stats.push_back(c.finish());
    return stats;
  }

 private:
  std::size_t first_;
  std::vector<InputStatsCollector> collectors_;
};

}  // namespace

CalibrationStates::CalibrationStates(const CalibrationSet& set,
                                     const ModelEnds& ends, ThreadPool& pool,
                                     std::filesystem::path scratch,
                                     const Ranks& ranks)
    : ranks_(ranks), tokens_(set.tokens()), store_(std::move(scratch)) {
  std::size_t at = 0;
  while (at < set.sequences.size()) {
    const std::size_t length = set.sequences[at].size();
    const std::size_t count =
        std::min(set.sequences.size() - at, tokens_of_batch(length) / length);
    CalibrationBatch batch;
    std::vector<TokenId> ids;
    for (std::size_t s = at; s < at + count; ++s) {
      const auto& sequence = set.sequences[s];
      ids.insert(ids.end(), sequence.begin(), sequence.end());
      batch.segments.push_back({.rows = sequence.size()});
    }
    at += count;
    segments_.push_back(batch.segments);
    if (!ranks_.owns(segments_.size() - 1)) continue;
    batch.state = ends.begin(ids, batch.segments, pool);
    store_.add(std::move(batch));
  }
}

void CalibrationStates::begin(const Block& block, ThreadPool& pool) {
  for (CalibrationBatch& batch : batches()) {
    block.begin(batch.state, batch.segments, pool);
  }
}

void CalibrationStates::run_stage(const Block& block, std::size_t stage,
                                  ThreadPool& pool) {
  for (CalibrationBatch& batch : batches()) {
    block.run_stage(stage, batch.segments, batch.state, pool);
  }
}

void CalibrationStates::run(const Block& block, ThreadPool& pool) {
  for (CalibrationBatch& batch : batches()) {
    block.run(batch.segments, batch.state, pool);
  }
}

std::vector<InputStats> CalibrationStates::collect(
    const StageSpec& next, GroupRange groups, const StatsNeeds& needs,
    ThreadPool& pool, const CalibrationStates* reference) const {
  GroupCollectors collectors(next, groups, needs, *this);
  for (std::size_t b = 0; b < rounds(); ++b) {
    if (b >= store_.size()) {
      collectors.add_none(pool);
      continue;
    }
    collectors.add(
        store_.read(b).state,
        reference == nullptr ? nullptr : &reference->store_.read(b).state,
        pool);
  }
  return collectors.finish();
}

std::vector<InputStats> CalibrationStates::collect_after(
    const Block& block, std::size_t stage, GroupRange groups,
    const StatsNeeds& needs, ThreadPool& pool,
    const CalibrationStates* reference, const Block* reference_block) const {
  GroupCollectors collectors(block.spec().stages.at(stage + 1), groups, needs,
                             *this);
  for (std::size_t b = 0; b < rounds(); ++b) {
    if (b >= store_.size()) {
      collectors.add_none(pool);
      continue;
    }
    const BlockState state = state_after(block, stage, store_.read(b), pool);
    std::optional<BlockState> full;
    if (reference != nullptr) {
      full =
          state_after(*reference_block, stage, reference->store_.read(b), pool);
    }
    collectors.add(state, full ? &*full : nullptr, pool);
  }
  return collectors.finish();
}

}  // namespace llmpress
