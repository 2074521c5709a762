// What stands around the blocks of a model that is trained: embedding, final
// norm and head.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "compress/model/decoder.h"
#include "compress/model/training/parameter.h"
#include "compress/model/training/trainable_block.h"

namespace llmpress {

// The loss of some rows of logits [rows, vocabulary], the rows from
// `first_row` of the batch on: returned, and its gradient added to `gradient`.
using LogitLoss = std::function<double(
    std::size_t first_row, ConstMatrixView logits, MatrixView<float> gradient)>;

class TrainableEnds {
 public:
  // `arch` must outlive this. A packed embedding stays as it is, and so does a
  // packed head that is tied to it, unless `learning.makes` makes them. What the
  // blocks get beside the stream (LayerInputs) stays as it is stored, but
  // gradients pass through it.
  TrainableEnds(const Checkpoint& checkpoint, const Architecture& arch,
                const ModelLearning& learning, Isa isa);

  std::vector<Parameter> parameters();
  void wrap_head(const std::function<std::unique_ptr<TrainableLinear>(
                     std::unique_ptr<TrainableLinear>)>& wrap) {
    head_ = wrap(std::move(head_));
  }
  void values_changed(ThreadPool& pool);
  const TrainableLinear& head() const { return *head_; }
  // Of an embedding that learns apart from the head; null: it does not.
  const TrainableLinear* own_embedding() const { return own_table_.get(); }

  // The stream before the first block, and what travels beside it.
  BlockState begin(std::span<const TokenId> tokens,
                   std::span<const Segment> segments, ThreadPool& pool) const;
  // From the gradients of what begin() gave.
  void begin_backward(std::span<const TokenId> tokens,
                      std::span<const Segment> segments, StreamGradient d,
                      ThreadPool& pool);

  // The loss of all rows of `hidden` [tokens, hidden] that count
  // (row_weights[t] != 0), a chunk of rows at a time so that no [tokens,
  // vocabulary] is ever held. `d_hidden`: filled in, or null for the loss alone.
  double loss(ConstMatrixView hidden, std::span<const float> row_weights,
              const LogitLoss& loss, MatrixF* d_hidden, ThreadPool& pool);
  // logits of hidden [rows, hidden], for who compares with them.
  MatrixF logits(ConstMatrixView hidden, ThreadPool& pool) const;

 private:
  // A norm with what it learns; no gain: none.
  struct EndNorm {
    NormWeights weights{};  // as stored
    NormOptions options{};
    NormGradients d{};  // empty: it does not learn

    // Of rows of the gain's width.
    MatrixF apply(ConstMatrixView X, ThreadPool& pool) const;
    // Adds dL/dX to dX.
    void backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                  ThreadPool& pool);
    void list(const std::string& name, std::vector<Parameter>& to);
    std::vector<float> gain() const;  // as it multiplies
  };
  // An embedding: rows of a table that learns, or is frozen.
  struct Table {
    EmbeddingRows frozen{};
    LearningTable* learning = nullptr;  // null: frozen

    MatrixF rows(std::span<const TokenId> tokens) const;
    // Adds factor * d to the rows' gradients.
    void backward(std::span<const TokenId> tokens, ConstMatrixView d,
                  float factor, ThreadPool& pool) const;
  };
  // See architecture.h.
  struct LayerParts {
    std::unique_ptr<TrainableLinear> own_table{};
    Table table{};
    std::unique_ptr<TrainableLinear> projection{};
    EndNorm norm{};
  };

  EndNorm read_norm_of(const std::string& name, std::size_t width,
                       const NormOptions& options) const;
  std::unique_ptr<TrainableLinear> read_linear_of(const std::string& name,
                                                  LinearWeights weights) const;
  bool learns(const std::string& tensor) const {
    return learning_.learns(tensor);
  }
  // Whether the weight of this module is plain numbers that learn.
  bool learns_dense(const std::string& module) const;
  Table read_table(const std::string& name, std::size_t rows, std::size_t width,
                   std::unique_ptr<TrainableLinear>& own) const;
  std::unique_ptr<TrainableLinear> make_table(const std::string& name) const;
  void read_head();
  void read_layer_parts();
  MatrixF before_norm(std::span<const TokenId> tokens,
                      std::span<const Segment> segments,
                      ThreadPool& pool) const;
  // The projection of the stream to the layers' inputs, before the norm.
  MatrixF projected(ConstMatrixView stream, ThreadPool& pool) const;
  MatrixF layer_inputs(std::span<const TokenId> tokens, ConstMatrixView stream,
                       ThreadPool& pool) const;
  void layer_inputs_backward(std::span<const TokenId> tokens,
                             ConstMatrixView stream, ConstMatrixView d,
                             MatrixView<float> d_stream, ThreadPool& pool);
  MatrixF head_input(ConstMatrixView normed, ThreadPool& pool) const;

  const Checkpoint* checkpoint_;  // while it is read
  const Architecture* arch_;
  ModelLearning learning_;
  Isa isa_;
  std::unique_ptr<TrainableLinear> head_{}, embedding_projection_{},
      head_projection_{};
  std::unique_ptr<TrainableLinear> own_table_{};  // of an untied embedding
  Table table_{};
  MatrixF positions_{}, d_positions_{};
  EndNorm embedding_norm_{}, final_norm_{};
  LayerParts layers_{};
};

}  // namespace llmpress
