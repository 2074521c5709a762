// A whole model that learns: forward keeps the stream between the blocks, then
// every block runs again and in reverse (gradient checkpointing,
// arXiv:1604.06174). Memory: one block's activations and one stream for every
// block; or everything, where speed counts more.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/matrix_reuse.h"
#include "compress/core/progress.h"
#include "compress/model/training/trainable_block.h"
#include "compress/model/training/trainable_ends.h"

namespace llmpress {

struct TokenBatch {
  std::vector<TokenId> tokens{};         // of all sequences
  std::vector<std::size_t> sequences{};  // tokens of each; none sees another's
};

// A loss at the stream between two blocks, boundary b being what block b reads
// (b = layers: what the last one gives): returned, and its gradient added.
using StreamLoss = std::function<double(
    std::size_t boundary, ConstMatrixView stream, MatrixView<float> gradient)>;

// A loss of values inside of a block: returned, and its gradients added to
// those of the pass.
using ValueLoss = std::function<double(BlockPass& pass)>;

struct BatchLoss {
  std::span<const float> row_weights{};  // [tokens]; 0: no logits needed
  LogitLoss logits{};
  StreamLoss stream{};                    // empty: none
  std::vector<std::size_t> boundaries{};  // at which `stream` is asked
  ValueLoss values{};                     // empty: none
  std::size_t values_block = 0;           // of which `values` is asked
  // Of what the pass leaves out; nothing: it is whole.
  std::optional<std::uint64_t> dropout_seed{};
};

// Shown the pass of one block.
struct PassVisit {
  std::size_t block = 0;
  std::function<void(BlockPass& pass)> look{};  // empty: nobody looks
};

struct TrainableOptions {
  Isa isa = best_isa();
  // `learns` empty: every number that is stored as a float; with `adapts`,
  // `prefix` or `prompt` none.
  ModelLearning learning{};
  KvFormat kv{};  // how keys and values are rounded, straight through
  bool keep_activations = false;
  Progress progress{};
};

class TrainableModel {
 public:
  // Reads every block. Throws Error(kUnsupported) for what cannot be trained.
  TrainableModel(const Checkpoint& checkpoint, const TrainableOptions& options);

  const Architecture& architecture() const { return *arch_; }
  std::span<const TrainableBlock> blocks() const { return blocks_; }
  // What learns; the spans stay where they are.
  std::vector<Parameter>& parameters() { return parameters_; }
  bool drops() const {
    return options_.learning.dropout > 0 ||
           options_.learning.attention_dropout > 0;
  }
  void values_changed(ThreadPool& pool);
  // What was learned of packed Linears, by module path.
  std::map<std::string, LinearWeights> packed_linears() const;
  void clear_gradients(ThreadPool& pool);

  // The batch's loss; adds to the gradients of all parameters. Losses of
  // streams and values do not go with a prompt.
  double run_backward(const TokenBatch& batch, const BatchLoss& loss,
                      ThreadPool& pool);
  // The loss alone.
  double loss(const TokenBatch& batch, const BatchLoss& loss, ThreadPool& pool);
  // The stream [tokens, hidden] behind the last block.
  MatrixF forward(const TokenBatch& batch, ThreadPool& pool) const;
  // As forward(), and the stream at each of `boundaries`.
  std::vector<MatrixF> streams(const TokenBatch& batch,
                               std::span<const std::size_t> boundaries,
                               ThreadPool& pool,
                               const PassVisit& visit = {}) const;
  TrainableEnds& ends() { return *ends_; }
  const TrainableEnds& ends() const { return *ends_; }

 private:
  // A batch's sequences without and with the rows that stand before them.
  struct Places {
    std::vector<Segment> tokens{}, rows{};
  };
  Places places_of(const TokenBatch& batch) const;
  BlockState begin(const TokenBatch& batch, const Places& places,
                   ThreadPool& pool) const;
  void begin_backward(const TokenBatch& batch, const Places& places,
                      StreamGradient stream, ThreadPool& pool);
  // Of [rows, hidden] those of the tokens.
  MatrixF rows_of_tokens(const Places& places, MatrixF rows) const;

  std::unique_ptr<Architecture> arch_;
  TrainableOptions options_;
  std::unique_ptr<TrainableEnds> ends_;
  std::vector<TrainableBlock> blocks_;
  MatrixF prompt_{}, d_prompt_{};
  std::vector<Parameter> parameters_;
  // Of run_backward(), for batches of as many tokens as the last one.
  MatrixStore store_{};
  std::size_t stored_tokens_ = 0;
};

}  // namespace llmpress
