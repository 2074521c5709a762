// A whole model ready to run: embedding, blocks, final norm, head. Its blocks
// are loaded, or come from the checkpoint one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/progress.h"
#include "compress/core/ranks.h"
#include "compress/model/block.h"
#include "compress/model/embedding_rows.h"
#include "compress/model/model_check.h"
#include "compress/model/prepacked_weights.h"
#include "compress/model/weight_companion.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct EndOptions {
  Isa isa = best_isa();
  std::shared_ptr<const WeightCompanion> companion{};  // null: none
  InputPrecision inputs = InputPrecision::kExact;      // of the head
  Ranks tensor{};  // who has the head's rows
  std::shared_ptr<const PrepackedWeights> prepacked{};  // may have the head
};

// Embedding lookup, final norm and head, apart from the blocks, so that a model
// larger than memory can be run block by block.
class ModelEnds {
 public:
  // A dense embedding is not copied: its rows are decoded from the checkpoint's
  // bytes, which stay open. A tied head is prepared from the same matrix.
  ModelEnds(const Checkpoint& checkpoint, const Architecture& arch, Isa isa);
  ModelEnds(const Checkpoint& checkpoint, const Architecture& arch,
            const EndOptions& options);
  // For who asks for no logits: the head, at times the largest weight of all, is
  // not loaded.
  static ModelEnds without_head(const Checkpoint& checkpoint,
                                const Architecture& arch, Isa isa);

  // The residual stream before the first block for `tokens`, the rows of
  // `segments`: [tokens, hidden]. Throws Error(kInvalidInput) for an id that is
  // not in the vocabulary, a position that the model has no embedding of, or a
  // row that is not finite.
  MatrixF embed(std::span<const TokenId> tokens,
                std::span<const Segment> segments, ThreadPool& pool) const;
  // embed(), and what the first block finds beside the stream.
  BlockState begin(std::span<const TokenId> tokens,
                   std::span<const Segment> segments, ThreadPool& pool) const;
  // What the head reads: hidden [rows, hidden] -> [rows, head width].
  MatrixF head_input(ConstMatrixView hidden, ThreadPool& pool) const;
  // hidden [rows, hidden] -> logits [rows, vocabulary].
  MatrixF logits(ConstMatrixView hidden, ThreadPool& pool) const;
  const LinearKernel& head() const { return *head_; }
  std::size_t bytes() const;  // held in memory: head, packed embedding, norm

 private:
  enum class Head { kLoaded, kNone };
  ModelEnds(const Checkpoint& checkpoint, const Architecture& arch,
            const EndOptions& options, Head head);
  void load_head(const Checkpoint& checkpoint, const EndOptions& options);

  const Architecture* arch_;
  MatrixF layer_inputs(std::span<const TokenId> tokens, ConstMatrixView X,
                       ThreadPool& pool) const;

  EmbeddingRows embedding_;
  MatrixF positions_{};  // [positions, hidden]
  std::unique_ptr<LinearKernel> projection_{}, head_projection_{};
  NormWeights embedding_norm_{}, final_norm_{};  // as they multiply
  EmbeddingRows layer_embedding_{};
  std::unique_ptr<LinearKernel> layer_projection_{};
  NormWeights layer_norm_{};
  std::unique_ptr<LinearKernel> head_;
  std::shared_ptr<const WeightCompanion> companion_;
};

class Decoder {
 public:
  struct Options {
    Isa isa = best_isa();
    KvFormat kv{};
    Progress progress{};
    std::shared_ptr<const WeightCompanion> companion{};  // null: none
    // Whose Linears are taken as they are laid out there; null: all are laid
    // out here. Neither with a companion, nor with ranks of `tensor`, nor with
    // scalar kernels.
    std::shared_ptr<const PrepackedWeights> prepacked{};
    // Of Linears that take floats, head included; kInt8 needs kernels faster
    // than the scalar ones (Error(kInvalidArgument)).
    InputPrecision inputs = InputPrecision::kExact;
    ThreadPool* pool = nullptr;  // that loads; null: this thread
    // Loads a block each time that it is to run and drops it again, for models
    // larger than memory: the checkpoint must outlive the decoder. Not with a
    // companion that has a prefix.
    bool streamed = false;
    // Who has the rows of every Linear, and of the head: what runs the model is
    // collective then. Not with a companion.
    Ranks tensor{};
    // Who has the blocks: each rank a stretch of them, in order, one at least.
    // forward() and what is built on it are collective then and give all ranks
    // the same. Not streamed.
    Ranks stages{};
  };
  // Loads block by block: beside the prepared weights, never more than one
  // Linear of each thread is held in its stored form.
  explicit Decoder(const Checkpoint& checkpoint);
  Decoder(const Checkpoint& checkpoint, const Options& options);

  const Architecture& architecture() const { return *arch_; }
  const ModelEnds& ends() const { return *ends_; }
  bool is_streamed() const { return load_ != nullptr; }
  // The loaded ones: none of a streamed model; this rank's stretch of stages.
  std::span<const Block> blocks() const { return blocks_; }
  // body(block) for all of them in order, streamed or not; with stages for this
  // rank's.
  void for_each_block(const std::function<void(const Block&)>& body) const;
  const Ranks& stages() const { return stages_; }
  // What stands before the first block of all; `segments` as forward() takes
  // them.
  BlockState begin(std::span<const TokenId> tokens,
                   std::span<const Segment> segments, ThreadPool& pool) const;
  // Through this rank's blocks.
  void run_blocks(std::span<const Segment> segments, BlockState& state,
                  ThreadPool& pool) const;
  // body(block, state) for every block of all stages in order, each on the rank
  // that has it. `state` is looked at on the first rank and comes out the same
  // on all. Collective.
  using BlockBody = std::function<void(const Block&, BlockState&)>;
  void through_stages(BlockState& state, const BlockBody& body) const;
  // What the checkpoint itself asks for.
  const std::optional<KvScheme>& kv_scheme() const { return kv_scheme_; }
  std::size_t bytes() const;  // of all prepared weights in memory

  // Hidden states [sum of rows, hidden] after the last block, before the final
  // norm. Segments with a cache append to it; others stand alone (past 0),
  // behind the model's prefix if it has one.
  MatrixF forward(std::span<const TokenId> tokens,
                  std::span<const Segment> segments, ThreadPool& pool) const;
  // For so many tokens behind the prefix, which it holds already.
  KvCache make_cache(std::size_t capacity) const;
  // Tokens that stand before every sequence (WeightCompanion::prefix).
  std::size_t prefix_tokens() const;

 private:
  void load_ends(const Checkpoint& checkpoint, const Options& options);
  void load_all(const Checkpoint& checkpoint, const Options& options,
                const RopeTablesOfModel& ropes);
  void set_prefix(std::vector<BlockPrefix> prefix);
  std::vector<bool> cached_layers() const;
  std::vector<Segment> placed(std::span<const Segment> segments) const;

  std::unique_ptr<Architecture> arch_;  // blocks point to it
  std::unique_ptr<ModelEnds> ends_;
  Ranks stages_;
  Stretch own_{};  // the blocks of this rank
  std::vector<Block> blocks_;
  std::function<Block(std::size_t layer)> load_{};  // null: all are loaded
  std::optional<KvScheme> kv_scheme_{};
  KvFormat kv_;
};

}  // namespace llmpress
