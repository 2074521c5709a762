#include "compress/calibration/calibration_sequences.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "compress/calibration/rank_rows.h"

namespace llmpress {
namespace {

// `of(batch)` has the rows of a batch.
template <class Of>
MatrixF gather_rows(std::span<const SequenceRows> chosen, const Of& of) {
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

}  // namespace

SequenceOrder::SequenceOrder(std::size_t count, std::size_t batch,
                             std::uint64_t seed)
    : rng_(seed), order_(count), batch_(std::min(count, batch)) {
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  next_ = count;
}

std::span<const std::size_t> SequenceOrder::draw() {
  if (next_ + batch_ > order_.size()) {
    for (std::size_t i = order_.size(); i > 1; --i) {
      std::swap(order_[i - 1], order_[rng_.below(i)]);
    }
    next_ = 0;
  }
  next_ += batch_;
  return std::span(order_).subspan(next_ - batch_, batch_);
}

std::vector<SequenceRows> sequences_of(const CalibrationStates& states) {
  std::vector<SequenceRows> all;
  for (std::size_t b = 0; b < states.all_batches(); ++b) {
    std::size_t first = 0;
    for (const Segment& segment : states.segments(b)) {
      all.push_back({b, first, segment.rows});
      first += segment.rows;
    }
  }
  return all;
}

MatrixF gather(std::span<const SequenceRows> chosen,
               std::span<const MatrixF> batches) {
  return gather_rows(
      chosen, [&](std::size_t b) -> const MatrixF& { return batches[b]; });
}

namespace {

// `chosen` of this rank's batches.
BlockState gather_own(std::span<const SequenceRows> chosen,
                      BatchesToRead batches) {
  if (chosen.empty()) return {};
  BlockState state;
  state.hidden = gather_rows(chosen, [&](std::size_t b) -> const MatrixF& {
    return batches[b].state.hidden;
  });
  const std::size_t first = chosen.front().batch;
  const std::size_t channels = batches[first].state.carried.size();
  for (std::size_t c = 0; c < channels; ++c) {
    state.carried.emplace_back();
    if (batches[first].state.carried[c].rows.empty()) continue;
    state.carried[c].rows =
        gather_rows(chosen, [&](std::size_t b) -> const MatrixF& {
          return batches[b].state.carried[c].rows;
        });
  }
  return state;
}

}  // namespace

BlockState gather_state(std::span<const SequenceRows> chosen,
                        const CalibrationStates& states) {
  const Ranks& ranks = states.ranks();
  std::vector<SequenceRows> own;
  std::vector<RankRows> parts;
  for (const SequenceRows& s : chosen) {
    parts.push_back({ranks.owner(s.batch), s.rows});
    if (!ranks.owns(s.batch)) continue;
    own.push_back({s.batch / ranks.size(), s.first, s.rows});
  }
  return join_rows(gather_own(own, states.batches()), parts, ranks);
}

}  // namespace llmpress
