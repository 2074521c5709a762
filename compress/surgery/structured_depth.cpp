#include "compress/surgery/structured_depth.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "compress/calibration/calibration_states.h"
#include "compress/core/formatted.h"
#include "compress/kernels/softmax.h"
#include "pruning/block_influence.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

// Rows of logits that are held at a time.
constexpr std::size_t kLogitRows = 256;

Block load_block(const UnitChoiceJob& job, std::size_t layer) {
  return Block(*job.arch, layer, read_block(*job.checkpoint, *job.arch, layer),
               job.isa);
}

DepthChoice choose_by_influence(const UnitChoiceJob& job, std::size_t kept) {
  CalibrationStates states(
      *job.calibration,
      ModelEnds::without_head(*job.checkpoint, *job.arch, job.isa), *job.pool);
  std::vector<double> influence;
  for (std::size_t layer = 0; layer < job.arch->layers; ++layer) {
    report(job.progress, {.phase = "measure influence",
                          .done = layer,
                          .total = job.arch->layers,
                          .detail = job.arch->block_name(layer)});
    const Block block = load_block(job, layer);
    BlockInfluence of_block;
    for (CalibrationBatch& batch : states.batches()) {
      const MatrixF before = batch.state.hidden;
      block.run(batch.segments, batch.state, *job.pool);
      of_block.add(before.view(), batch.state.hidden.view(), *job.pool);
    }
    influence.push_back(of_block.value());
  }
  DepthChoice choice{.kept = keep_most_important(influence, kept)};
  auto removed = complement(choice.kept, job.arch->layers);
  std::ranges::stable_sort(removed, {},
                           [&](std::size_t l) { return influence[l]; });
  for (const std::size_t layer : removed) {
    choice.removed.push_back(
        {layer, "influence " + fixed(influence[layer], 4)});
  }
  return choice;
}

DepthChoice choose_by_masks(std::span<const double> scores, std::size_t kept) {
  DepthChoice choice{.kept = keep_most_important(scores, kept)};
  auto removed = complement(choice.kept, scores.size());
  std::ranges::stable_sort(removed, {},
                           [&](std::size_t l) { return scores[l]; });
  for (const std::size_t layer : removed) {
    choice.removed.push_back({layer, "log alpha " + fixed(scores[layer], 4)});
  }
  return choice;
}

// Greedy removal. The stream of the model without each candidate is carried
// along, so every block is read once a removal.
class PerplexityChooser {
 public:
  explicit PerplexityChooser(const UnitChoiceJob& job)
      : job_(job),
        probe_(probe_set(*job.calibration)),
        ends_(*job.checkpoint, *job.arch, job.isa) {}

  DepthChoice choose(std::size_t kept) {
    DepthChoice choice;
    choice.kept.resize(job_.arch->layers);
    std::iota(choice.kept.begin(), choice.kept.end(), std::size_t{0});
    while (choice.kept.size() > kept) {
      const auto [position, nll] = cheapest(choice.kept);
      choice.removed.push_back(
          {choice.kept[position],
           formatted("perplexity {} without it on {} calibration tokens",
                     fixed(std::exp(nll), 4), probe_.tokens())});
      choice.kept.erase(choice.kept.begin() +
                        static_cast<std::ptrdiff_t>(position));
    }
    return choice;
  }

 private:
  static CalibrationSet probe_set(const CalibrationSet& all) {
    CalibrationSet probe;
    for (const auto& sequence : all.sequences) {
      if (!probe.sequences.empty() &&
          probe.tokens() + sequence.size() > kDepthProbeTokens) {
        break;
      }
      probe.sequences.push_back(sequence);
    }
    return probe;
  }

  // The place in `layers` whose removal leaves the lowest loss, and that loss.
  std::pair<std::size_t, double> cheapest(
      const std::vector<std::size_t>& layers) {
    CalibrationStates states(probe_, ends_, *job_.pool);
    CalibrationBatch& whole = states.batches().front();
    std::vector<BlockState> without;  // of the places so far
    for (std::size_t p = 0; p < layers.size(); ++p) {
      report(job_.progress, {.phase = "measure removals",
                             .done = p,
                             .total = layers.size(),
                             .detail = job_.arch->block_name(layers[p])});
      const Block block = load_block(job_, layers[p]);
      for (BlockState& state : without) {
        block.run(whole.segments, state, *job_.pool);
      }
      without.push_back(whole.state);
      block.run(whole.segments, whole.state, *job_.pool);
    }
    std::pair<std::size_t, double> best{0, loss(without[0])};
    for (std::size_t p = 1; p < without.size(); ++p) {
      const double nll = loss(without[p]);
      if (nll < best.second) best = {p, nll};
    }
    return best;
  }

  // Mean negative log-likelihood of each token after its sequence's first.
  double loss(const BlockState& state) const {
    std::vector<TokenId> targets;  // of every row; the last of a sequence: none
    std::vector<bool> scored;
    for (const auto& sequence : probe_.sequences) {
      targets.insert(targets.end(), sequence.begin() + 1, sequence.end());
      targets.push_back(0);
      scored.insert(scored.end(), sequence.size() - 1, true);
      scored.push_back(false);
    }
    std::vector<double> nll(targets.size());
    for (std::size_t t = 0; t < nll.size(); t += kLogitRows) {
      const std::size_t rows = std::min(kLogitRows, nll.size() - t);
      const MatrixF logits =
          ends_.logits(state.hidden.view().rows_slice(t, rows), *job_.pool);
      job_.pool->for_each(rows, [&](std::size_t r) {
        if (!scored[t + r]) return;
        nll[t + r] = negative_log_likelihood(
            logits.row(r), static_cast<std::size_t>(targets[t + r]));
      });
    }
    const auto count = std::ranges::count(scored, true);
    const double mean = std::accumulate(nll.begin(), nll.end(), 0.0) /
                        static_cast<double>(std::max<std::ptrdiff_t>(count, 1));
    return std::isfinite(mean) ? mean : INFINITY;
  }

  const UnitChoiceJob& job_;
  CalibrationSet probe_;
  ModelEnds ends_;
};

}  // namespace

DepthChoice choose_depth(const UnitChoiceJob& job, std::size_t kept,
                         std::span<const double> learned) {
  switch (job.config->depth_importance) {
    case DepthImportance::kCosine:
      return choose_by_influence(job, kept);
    case DepthImportance::kLearned:
      return choose_by_masks(learned, kept);
    case DepthImportance::kPerplexity:
      break;
  }
  return PerplexityChooser(job).choose(kept);
}

}  // namespace llmpress
