// Documents packed into sequences of one length, and their order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "compress/model/training/trainable_model.h"

namespace llmpress {

class TrainingData;

// Where in the endless stream of training a batch stands: what is random about
// it follows from that alone.
struct BatchDraw {
  std::uint64_t seed = 0;
  std::size_t first = 0;  // of its sequences
};

// One pass: the batch, and the token that follows each row, -1 where none does
// (the last token of a document or of a sequence).
struct TrainingBatch {
  TokenBatch input{};
  std::vector<std::int32_t> targets{};  // [tokens]
  // Where its rows are from; null: made otherwise.
  const TrainingData* data = nullptr;
  std::vector<std::size_t> indices{};  // of the sequences
  std::optional<BatchDraw> draw{};     // nothing: it is not to be learned from

  std::size_t scored() const;  // targets that are there
  // Of what a pass over it leaves out, where it is drawn.
  std::optional<std::uint64_t> dropout_seed() const;
  // [tokens]: factor / scored() of each scored row, so that sums are means.
  std::vector<float> mean_weights(double factor) const;
};

class TrainingData {
 public:
  // Documents one after another, cut every `sequence_length` tokens; parts of
  // different documents in one sequence do not see each other. The tail that
  // fills no sequence is dropped.
  TrainingData(std::span<const std::vector<TokenId>> documents,
               std::size_t sequence_length);

  std::size_t sequences() const { return starts_.size(); }
  std::size_t sequence_length() const { return length_; }
  std::size_t tokens() const { return sequences() * length_; }
  // All documents one after another, the dropped tail with them.
  std::span<const TokenId> text() const { return tokens_; }

  // Sequences by index.
  TrainingBatch batch(std::span<const std::size_t> indices) const;
  // The sequences of `count` from position `first` of an endless stream in which
  // every epoch is shuffled anew by the seed: what is drawn depends on the
  // position alone.
  TrainingBatch shuffled(std::uint64_t seed, std::size_t first,
                         std::size_t count);

 private:
  void shuffle(std::uint64_t seed, std::size_t epoch);

  std::size_t length_;
  std::vector<TokenId> tokens_;      // of all documents
  std::vector<std::size_t> ends_;    // of documents, ascending
  std::vector<std::size_t> starts_;  // of sequences
  std::vector<std::size_t> order_;   // of the epoch
  std::uint64_t order_seed_ = 0;
  std::size_t order_epoch_ = static_cast<std::size_t>(-1);
};

}  // namespace llmpress
