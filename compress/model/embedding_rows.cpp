#include "compress/model/embedding_rows.h"

#include <algorithm>
#include <cmath>

#include "compress/core/formatted.h"
#include "compress/model/model_check.h"
#include "formats/linears/dense_linear.h"

namespace llmpress {

EmbeddingRows::EmbeddingRows(const Checkpoint& checkpoint,
                             const std::string& name, std::size_t vocabulary,
                             std::size_t width)
    : name_(name), vocabulary_(vocabulary), width_(width) {
  std::size_t rows = 0, cols = 0;
  if (const TensorInfo* const dense = dense_matrix(checkpoint, name)) {
    rows = dense->shape[0];
    cols = dense->shape[1];
    dtype_ = dense->dtype;
    bytes_ = checkpoint.tensors().read(*dense);
    check_finite(dense->dtype, bytes_.bytes, cols,
                 checkpoint.path().string() + ": '" + dense->name + "'");
  } else {
    packed_ = checkpoint.read_linear(name).weight;
    rows = rows_of(*packed_);
    cols = cols_of(*packed_);
  }
  if (rows == vocabulary && cols == width) return;
  fail(ErrorCode::kInvalidInput,
       "{}: '{}' is [{}, {}], wanted [vocab_size {}, hidden_size {}]",
       checkpoint.path(), name, rows, cols, vocabulary, width);
}

MatrixF EmbeddingRows::rows(std::span<const TokenId> tokens) const {
  MatrixF X(tokens.size(), width_);
  const std::size_t row_bytes = bytes_of(dtype_, width_);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const std::size_t id = tokens[t];
    if (id >= vocabulary_) {
      fail(ErrorCode::kInvalidInput,
           "token id {} is not in the model's vocabulary of {}", id,
           vocabulary_);
    }
    const std::span<float> row = X.row(t);
    if (packed_) {
      dequantize_rows(*packed_, id, {row, 1, width_});
    } else {
      decode_floats(dtype_, bytes_.bytes.subspan(id * row_bytes, row_bytes),
                    row);
    }
    if (!std::ranges::all_of(row, [](float x) { return std::isfinite(x); })) {
      fail(ErrorCode::kInvalidInput,
           "'{}': row {} holds a value that is not finite", name_, id);
    }
  }
  return X;
}

std::size_t EmbeddingRows::bytes() const {
  return packed_ ? stored_bytes(*packed_) : 0;
}

}  // namespace llmpress
