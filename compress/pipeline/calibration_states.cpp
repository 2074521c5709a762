#include "compress/pipeline/calibration_states.h"

#include <algorithm>
#include <utility>

namespace llmpress {
namespace {

// Tokens of a batch; fixed, so that sums over batches are the same bytes on
// every machine.
constexpr std::size_t kBatchTokens = 4096;

MatrixF input_after(const Block& block, std::size_t stage,
                    const CalibrationBatch& batch, ThreadPool& pool) {
  BlockState copy = batch.state;
  block.run_stage(stage, batch.segments, copy, pool);
  return std::move(copy.stage_input);
}

}  // namespace

CalibrationStates::CalibrationStates(const CalibrationSet& set,
                                     const ModelEnds& ends) {
  std::size_t at = 0;
  while (at < set.sequences.size()) {
    const std::size_t length = set.sequences[at].size();
    const std::size_t count =
        std::min(set.sequences.size() - at,
                 std::max<std::size_t>(1, kBatchTokens / length));
    CalibrationBatch batch;
    std::vector<TokenId> ids;
    for (std::size_t s = at; s < at + count; ++s) {
      const auto& sequence = set.sequences[s];
      ids.insert(ids.end(), sequence.begin(), sequence.end());
      batch.segments.push_back({.rows = sequence.size()});
    }
    batch.state.hidden = ends.embed(ids);
    tokens_ += ids.size();
    batches_.push_back(std::move(batch));
    at += count;
  }
}

void CalibrationStates::begin(const Block& block, ThreadPool& pool) {
  for (CalibrationBatch& batch : batches_) block.begin(batch.state, pool);
}

void CalibrationStates::run_stage(const Block& block, std::size_t stage,
                                  ThreadPool& pool) {
  for (CalibrationBatch& batch : batches_) {
    block.run_stage(stage, batch.segments, batch.state, pool);
  }
}

void CalibrationStates::run(const Block& block, ThreadPool& pool) {
  for (CalibrationBatch& batch : batches_) {
    block.run(batch.segments, batch.state, pool);
  }
}

InputStats CalibrationStates::collect(
    std::size_t width, const StatsNeeds& needs, ThreadPool& pool,
    const CalibrationStates* reference) const {
  InputStatsCollector collector(width, needs, tokens_);
  for (std::size_t b = 0; b < batches_.size(); ++b) {
    const ConstMatrixView full =
        reference == nullptr
            ? ConstMatrixView{}
            : ConstMatrixView(reference->batches_[b].state.stage_input.view());
    collector.add(batches_[b].state.stage_input.view(), pool, full);
  }
  return collector.finish();
}

InputStats CalibrationStates::collect_after(
    const Block& block, std::size_t stage, std::size_t width,
    const StatsNeeds& needs, ThreadPool& pool,
    const CalibrationStates* reference, const Block* reference_block) const {
  InputStatsCollector collector(width, needs, tokens_);
  for (std::size_t b = 0; b < batches_.size(); ++b) {
    const MatrixF X = input_after(block, stage, batches_[b], pool);
    MatrixF full;
    if (reference != nullptr) {
      full = input_after(*reference_block, stage, reference->batches_[b], pool);
    }
    collector.add(X.view(), pool, full.view());
  }
  return collector.finish();
}

}  // namespace llmpress
