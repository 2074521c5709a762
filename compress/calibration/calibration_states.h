// The calibration tokens' activations as they travel from block to block.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <vector>

#include "compress/calibration/batch_store.h"
#include "compress/calibration/calibration_text.h"
#include "compress/core/input_stats.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"
#include "compress/model/block.h"
#include "compress/model/decoder.h"

namespace llmpress {

// Tokens of a batch, or one longer sequence; fixed, so that sums over batches
// are the same bytes on every machine.
inline constexpr std::size_t kCalibrationBatchTokens = 2048;
// Of batches of sequences of this length.
constexpr std::size_t tokens_of_batch(std::size_t sequence_tokens) {
  return sequence_tokens == 0 || sequence_tokens >= kCalibrationBatchTokens
             ? std::max(sequence_tokens, std::size_t{1})
             : kCalibrationBatchTokens / sequence_tokens * sequence_tokens;
}

// Experts of a stage whose inputs are looked at together; a second moment for
// each of all of them may take more than their weights.
struct GroupRange {
  std::size_t first = 0, count = 0;
};

class CalibrationStates {
 public:
  // The embeddings of all sequences, in batches of a fixed number of tokens.
  // `scratch`: a folder for all batches but one; empty: all stay in memory.
  // `ranks`: who has the others; batch b is on rank b mod ranks.size().
  CalibrationStates(const CalibrationSet& set, const ModelEnds& ends,
                    ThreadPool& pool, std::filesystem::path scratch = {},
                    const Ranks& ranks = {});

  std::size_t tokens() const { return tokens_; }  // of all ranks
  const Ranks& ranks() const { return ranks_; }
  // Of the batches of all ranks, counted through.
  std::size_t all_batches() const { return segments_.size(); }
  const std::vector<Segment>& segments(std::size_t batch) const {
    return segments_[batch];
  }
  // Batches come in rounds, one of each rank: batches()[r] is of round r. In
  // the last one a rank may have none.
  std::size_t rounds() const {
    return (all_batches() + ranks_.size() - 1) / ranks_.size();
  }
  // A batch is good until another one is asked for.
  BatchesToChange batches() { return BatchesToChange(store_); }
  BatchesToRead batches() const { return BatchesToRead(store_); }

  // Sets the input of stage 0 of `block`.
  void begin(const Block& block, ThreadPool& pool);
  void run_stage(const Block& block, std::size_t stage, ThreadPool& pool);
  // The whole block.
  void run(const Block& block, ThreadPool& pool);

  // Statistics of the input of `next`, the stage that runs next, one for each
  // of these groups of it (an expert sees the rows that are routed to it):
  // those of the batches of all ranks, on all ranks. Collective.
  // `reference`: the same tokens in the uncompressed model, where
  // needs.reference_moment asks for it. An expert's are those that the
  // compressed model routes to it, as at run time. Where the uncompressed model
  // routes one to other experts, this expert has no output there to aim at: the
  // token counts in the second moment, and as its own pair, so not in the
  // reference moment.
  std::vector<InputStats> collect(
      const StageSpec& next, GroupRange groups, const StatsNeeds& needs,
      ThreadPool& pool, const CalibrationStates* reference = nullptr) const;
  std::vector<InputStats> collect(
      const StageSpec& next, const StatsNeeds& needs, ThreadPool& pool,
      const CalibrationStates* reference = nullptr) const {
    return collect(next, {0, next.groups}, needs, pool, reference);
  }
  // The same for the stage after `stage`, without keeping its input: `stage` of
  // `block` runs on copies, batch by batch; that of `reference_block` on copies
  // of `reference`.
  std::vector<InputStats> collect_after(
      const Block& block, std::size_t stage, GroupRange groups,
      const StatsNeeds& needs, ThreadPool& pool,
      const CalibrationStates* reference = nullptr,
      const Block* reference_block = nullptr) const;

 private:
  Ranks ranks_;
  std::size_t tokens_ = 0;
  std::vector<std::vector<Segment>> segments_;  // of the batches of all ranks
  BatchStore store_;
};

}  // namespace llmpress
