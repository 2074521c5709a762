#include "compress/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/error.h"
#include "compress/kernels/norms.h"

namespace llmpress {
namespace {

std::string place(const Checkpoint& checkpoint) {
  return checkpoint.path().string();
}

void check_matrix_shape(const Checkpoint& checkpoint, const std::string& name,
                        std::size_t rows, std::size_t cols,
                        const Architecture& arch) {
  if (rows == arch.vocabulary && cols == arch.hidden) return;
  throw Error(ErrorCode::kInvalidInput,
              place(checkpoint) + ": '" + name + "' is [" +
                  std::to_string(rows) + ", " + std::to_string(cols) +
                  "], wanted [vocab_size " + std::to_string(arch.vocabulary) +
                  ", hidden_size " + std::to_string(arch.hidden) + "]");
}

}  // namespace

ModelEnds::ModelEnds(const Checkpoint& checkpoint, const Architecture& arch,
                     Isa isa, std::shared_ptr<const WeightCompanion> companion)
    : arch_(&arch),
      final_norm_(read_norm(checkpoint, arch, arch.final_norm, arch.hidden)),
      companion_(std::move(companion)) {
  if (const TensorInfo* dense = dense_matrix(checkpoint, arch.embedding)) {
    check_matrix_shape(checkpoint, arch.embedding, dense->shape[0],
                       dense->shape[1], arch);
    embedding_dtype_ = dense->dtype;
    embedding_bytes_ = checkpoint.tensors().read(*dense);
  } else {
    embedding_packed_ = checkpoint.read_linear(arch.embedding).weight;
    check_matrix_shape(checkpoint, arch.embedding, rows_of(*embedding_packed_),
                       cols_of(*embedding_packed_), arch);
  }
  const std::string& head = arch.tied_head ? arch.embedding : arch.head;
  if (!checkpoint.has_linear(head)) {
    throw Error(ErrorCode::kInvalidInput,
                place(checkpoint) + ": '" + head + ".weight' is missing, " +
                    "and config.json says that the head is not tied to the "
                    "embedding (tie_word_embeddings)");
  }
  const LinearWeights weights = checkpoint.read_linear(head);
  check_matrix_shape(checkpoint, head, rows_of(weights.weight),
                     cols_of(weights.weight), arch);
  head_ = make_linear_kernel(weights, isa);
  // A tied head has the embedding's weights, but a module of its own.
  if (companion_) {
    head_ = companion_->beside(arch.head, weights, std::move(head_));
  }
}

MatrixF ModelEnds::embed(std::span<const TokenId> tokens) const {
  MatrixF X(tokens.size(), arch_->hidden);
  const std::size_t row_bytes = bytes_of(embedding_dtype_, arch_->hidden);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const std::size_t id = tokens[t];
    if (id >= arch_->vocabulary) {
      throw Error(ErrorCode::kInvalidInput,
                  "token id " + std::to_string(id) +
                      " is not in the model's vocabulary of " +
                      std::to_string(arch_->vocabulary));
    }
    const std::span<float> row = X.row(t);
    if (embedding_packed_) {
      dequantize_rows(*embedding_packed_, id, {row, 1, arch_->hidden});
    } else {
      decode_floats(embedding_dtype_,
                    embedding_bytes_.bytes.subspan(id * row_bytes, row_bytes),
                    row);
    }
    if (!std::all_of(row.begin(), row.end(),
                     [](float x) { return std::isfinite(x); })) {
      throw Error(ErrorCode::kInvalidInput,
                  "'" + arch_->embedding + "': row " + std::to_string(id) +
                      " holds a value that is not finite");
    }
  }
  if (companion_) companion_->change_embedding(tokens, X.view());
  return X;
}

MatrixF ModelEnds::head_input(ConstMatrixView hidden, ThreadPool& pool) const {
  MatrixF normed(hidden.rows(), hidden.cols());
  const auto epsilon = static_cast<float>(arch_->norm_eps);
  switch (arch_->norm) {
    case NormKind::kRms:
      rms_norm(hidden, final_norm_.gain, epsilon, normed.view(), pool);
      break;
    case NormKind::kLayer:
      layer_norm(hidden, final_norm_.gain, final_norm_.bias, epsilon,
                 normed.view(), pool);
      break;
  }
  return normed;
}

MatrixF ModelEnds::logits(ConstMatrixView hidden, ThreadPool& pool) const {
  const MatrixF normed = head_input(hidden, pool);
  MatrixF logits(hidden.rows(), arch_->vocabulary);
  head_->run(normed.view(), logits.view(), pool);
  return logits;
}

std::size_t ModelEnds::bytes() const {
  return head_->bytes() +
         (embedding_packed_ ? stored_bytes(*embedding_packed_) : 0) +
         final_norm_.gain.size() * sizeof(float);
}

Decoder::Decoder(const Checkpoint& checkpoint)
    : Decoder(checkpoint, Options{}) {}

Decoder::Decoder(const Checkpoint& checkpoint, const Options& options)
    : arch_(std::make_unique<Architecture>(
          parse_architecture(checkpoint.config_json(), place(checkpoint)))),
      kv_(options.kv) {
  check_model(checkpoint, *arch_);
  ends_ = std::make_unique<ModelEnds>(checkpoint, *arch_, options.isa,
                                      options.companion);
  const auto positions = std::make_shared<RopePositions>(*arch_);
  blocks_.reserve(arch_->layers);
  for (std::size_t layer = 0; layer < arch_->layers; ++layer) {
    report(options.progress,
           {"load", layer, arch_->layers, arch_->block_name(layer)});
    const BlockWeights weights = read_block(checkpoint, *arch_, layer);
    Block& block = blocks_.emplace_back(*arch_, layer, weights, options.isa,
                                        kv_, positions);
    for (std::size_t l = 0; options.companion && l < weights.linears.size();
         ++l) {
      block.wrap_linear(l, [&](std::unique_ptr<LinearKernel> kernel) {
        return options.companion->beside(arch_->linear_name(layer, l),
                                         weights.linears[l], std::move(kernel));
      });
    }
  }
  report(options.progress, {"load", arch_->layers, arch_->layers, ""});
}

std::size_t Decoder::bytes() const {
  std::size_t total = ends_->bytes();
  for (const Block& block : blocks_) total += block.bytes();
  return total;
}

MatrixF Decoder::forward(std::span<const TokenId> tokens,
                         std::span<const Segment> segments,
                         ThreadPool& pool) const {
  BlockState state{ends_->embed(tokens), {}};
  for (const Block& block : blocks_) block.run(segments, state, pool);
  for (const Segment& segment : segments) {
    if (segment.cache != nullptr) segment.cache->advance(segment.rows);
  }
  return std::move(state.hidden);
}

KvCache Decoder::make_cache(std::size_t capacity) const {
  return {arch_->layers, arch_->kv_heads, arch_->head_dim, capacity, kv_};
}

}  // namespace llmpress
