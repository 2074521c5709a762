#include "compress/model/embedding_rows.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
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
  throw Error(ErrorCode::kInvalidInput,
              checkpoint.path().string() + ": '" + name + "' is [" +
                  std::to_string(rows) + ", " + std::to_string(cols) +
                  "], wanted [vocab_size " + std::to_string(vocabulary) +
                  ", hidden_size " + std::to_string(width) + "]");
}

MatrixF EmbeddingRows::rows(std::span<const TokenId> tokens) const {
  MatrixF X(tokens.size(), width_);
  const std::size_t row_bytes = bytes_of(dtype_, width_);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const std::size_t id = tokens[t];
    if (id >= vocabulary_) {
      throw Error(ErrorCode::kInvalidInput,
                  "token id " + std::to_string(id) +
                      " is not in the model's vocabulary of " +
                      std::to_string(vocabulary_));
    }
    const std::span<float> row = X.row(t);
    if (packed_) {
      dequantize_rows(*packed_, id, {row, 1, width_});
    } else {
      decode_floats(dtype_, bytes_.bytes.subspan(id * row_bytes, row_bytes),
                    row);
    }
    if (!std::ranges::all_of(row, [](float x) { return std::isfinite(x); })) {
      throw Error(ErrorCode::kInvalidInput,
                  "'" + name_ + "': row " + std::to_string(id) +
                      " holds a value that is not finite");
    }
  }
  return X;
}

std::size_t EmbeddingRows::bytes() const {
  return packed_ ? stored_bytes(*packed_) : 0;
}

}  // namespace llmpress
