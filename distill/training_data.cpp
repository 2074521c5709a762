#include "distill/training_data.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "compress/core/rng.h"

namespace llmpress {

std::size_t TrainingBatch::scored() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(targets, [](std::int32_t t) { return t >= 0; }));
}

std::optional<std::uint64_t> TrainingBatch::dropout_seed() const {
  if (!draw) return std::nullopt;
  Rng mixed(draw->seed);
  return Rng(mixed.next() ^ draw->first).next();
}

std::vector<float> TrainingBatch::mean_weights(double factor) const {
  const auto each = static_cast<float>(
      factor / static_cast<double>(std::max<std::size_t>(1, scored())));
  std::vector<float> weights(targets.size());
  for (std::size_t t = 0; t < weights.size(); ++t) {
    if (targets[t] >= 0) weights[t] = each;
  }
  return weights;
}

TrainingData::TrainingData(std::span<const std::vector<TokenId>> documents,
                           std::size_t sequence_length)
    : length_(sequence_length) {
  for (const std::vector<TokenId>& document : documents) {
    if (document.empty()) continue;
    tokens_.insert(tokens_.end(), document.begin(), document.end());
    ends_.push_back(tokens_.size());
  }
  for (std::size_t at = 0; at + length_ <= tokens_.size(); at += length_) {
    starts_.push_back(at);
  }
}

TrainingBatch TrainingData::batch(std::span<const std::size_t> indices) const {
  TrainingBatch batch;
  batch.data = this;
  batch.indices.assign(indices.begin(), indices.end());
  for (const std::size_t index : indices) {
    const std::size_t begin = starts_.at(index), end = begin + length_;
    auto document = std::ranges::upper_bound(ends_, begin);
    for (std::size_t at = begin; at < end; ++document) {
      const std::size_t stop = std::min(*document, end);
      batch.input.sequences.push_back(stop - at);
      for (; at < stop; ++at) {
        batch.input.tokens.push_back(tokens_[at]);
        batch.targets.push_back(
            at + 1 < stop ? static_cast<std::int32_t>(tokens_[at + 1]) : -1);
      }
    }
  }
  return batch;
}

// Fisher and Yates.
void TrainingData::shuffle(std::uint64_t seed, std::size_t epoch) {
  if (order_epoch_ == epoch && order_seed_ == seed && !order_.empty()) return;
  order_.resize(sequences());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  Rng mixed(seed);
  Rng rng(mixed.next() + epoch);
  for (std::size_t i = order_.size(); i > 1; --i) {
    std::swap(order_[i - 1], order_[rng.below(i)]);
  }
  order_epoch_ = epoch;
  order_seed_ = seed;
}

TrainingBatch TrainingData::shuffled(std::uint64_t seed, std::size_t first,
                                     std::size_t count) {
  std::vector<std::size_t> drawn;
  for (std::size_t i = first; i < first + count; ++i) {
    shuffle(seed, i / sequences());
    drawn.push_back(order_[i % sequences()]);
  }
  TrainingBatch whole = batch(drawn);
  whole.draw = BatchDraw{seed, first};
  return whole;
}

}  // namespace llmpress
