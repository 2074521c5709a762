// A whole model ready to run: embedding, blocks, final norm, head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/progress.h"
#include "compress/model/block.h"
#include "formats/tokenizer.h"

namespace llmpress {

// Sizes of a model, over what is stored (tied tensors once).
struct ModelSize {
  std::size_t weight_bytes = 0;       // all tensors
  std::size_t weights = 0;            // all elements
  std::size_t linear_bytes = 0;       // Linears of the blocks
  std::size_t linear_weights = 0;
  double bits_per_weight() const;        // 8 * weight_bytes / weights
  double linear_bits_per_weight() const;
};

// Embedding lookup, final norm and head, apart from the blocks, so that a model
// larger than memory can be run block by block.
class ModelEnds {
 public:
  ModelEnds(const Checkpoint& checkpoint, const Architecture& arch, Isa isa);

  // Rows of the embedding for `tokens`: [tokens, hidden]. Throws
  // Error(kInvalidInput) for an id that is not in the vocabulary.
  MatrixF embed(std::span<const TokenId> tokens) const;
  // final norm, then head: hidden [rows, hidden] -> logits [rows, vocabulary].
  MatrixF logits(ConstMatrixView hidden, ThreadPool& pool) const;

 private:
  const Architecture* arch_;
  MatrixF embedding_;  // [vocabulary, hidden]
  NormWeights final_norm_;
  std::unique_ptr<LinearKernel> head_;
};

class Decoder {
 public:
  struct Options {
    Isa isa = best_isa();
    KvFormat kv{};
    Progress progress{};
  };
  explicit Decoder(const Checkpoint& checkpoint);
  Decoder(const Checkpoint& checkpoint, const Options& options);

  const Architecture& architecture() const { return *arch_; }
  const ModelEnds& ends() const { return *ends_; }

  // Hidden states [sum of rows, hidden] after the last block, before the final
  // norm. Segments with a cache append to it.
  MatrixF forward(std::span<const TokenId> tokens,
                  std::span<const Segment> segments, ThreadPool& pool) const;
  KvCache make_cache(std::size_t capacity) const;

 private:
  std::unique_ptr<Architecture> arch_;  // blocks point to it
  std::unique_ptr<ModelEnds> ends_;
  std::vector<Block> blocks_;
  KvFormat kv_;
};

// From the files alone, without loading weights.
ModelSize measure_model(const Checkpoint& checkpoint, const Architecture& arch);

// Throws Error(kInvalidInput) listing what is missing or misshapen in the
// checkpoint for this architecture, or if the tokenizer has ids that the
// embedding does not.
void check_model(const Checkpoint& checkpoint, const Architecture& arch);

}  // namespace llmpress
