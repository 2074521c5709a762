// The rows of an embedding, decoded when they are asked for: a dense one is not
// copied, its bytes stay open in the checkpoint.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

class EmbeddingRows {
 public:
  EmbeddingRows() = default;
  // The matrix `name` [vocabulary, width]. Throws Error(kInvalidInput) if it is
  // missing or of another shape.
  EmbeddingRows(const Checkpoint& checkpoint, const std::string& name,
                std::size_t vocabulary, std::size_t width);

  // [tokens, width]. Throws Error(kInvalidInput) for an id that is not in the
  // vocabulary or a row that is not finite.
  MatrixF rows(std::span<const TokenId> tokens) const;
  std::size_t bytes() const;  // held in memory

 private:
  std::string name_{};
  std::size_t vocabulary_ = 0, width_ = 0;
  DType dtype_ = DType::kF32;
  TensorBytes bytes_{};
  std::optional<PackedWeight> packed_{};
};

}  // namespace llmpress
