// Who a student learns from: a model that runs, or what one said and was stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compress/model/decoder.h"
#include "compress/model/training/attention_values.h"
#include "distill/distill_config.h"
#include "distill/training_data.h"

namespace llmpress {

class Teacher {
 public:
  virtual ~Teacher() = default;
  // Columns of the logits that are compared. A student's further ones, and a
  // teacher's, are of no token.
  virtual std::size_t vocabulary() const = 0;
  // What it says of a batch, asked for below.
  virtual void read(const TrainingBatch& batch, ThreadPool& pool) = 0;
  // The distance of the student's logits Z [rows, vocabulary] of the batch's
  // rows from `first` on, weighted; its gradient is added to G.
  virtual double divergence(std::size_t first, ConstMatrixView Z,
                            std::span<const float> row_weights,
                            MatrixView<float> G, ThreadPool& pool) const = 0;
};

// A model. Its streams and attention are there to compare with too.
class RunningTeacher final : public Teacher {
 public:
  // `vocabulary`: the student's. `decoder` must outlive this.
  RunningTeacher(const DistillConfig& config, const Decoder& decoder,
                 std::size_t vocabulary, Isa isa);

  // What read() keeps beside the last stream: the stream behind each of these
  // blocks (ascending), and what the attention of this one reads.
  void keep_streams(std::vector<std::size_t> blocks) {
    kept_blocks_ = std::move(blocks);
  }
  void keep_attention(std::size_t block) { attention_block_ = block; }

  std::size_t vocabulary() const override { return vocabulary_; }
  void read(const TrainingBatch& batch, ThreadPool& pool) override;
  double divergence(std::size_t first, ConstMatrixView Z,
                    std::span<const float> row_weights, MatrixView<float> G,
                    ThreadPool& pool) const override;

  const Architecture& architecture() const { return decoder_.architecture(); }
  // Of the i-th of the kept blocks: [tokens, hidden].
  ConstMatrixView stream(std::size_t i) const { return streams_[i].view(); }
  const AttentionRows& attention() const { return attention_; }

 private:
  void keep(std::size_t block, const MatrixF& stream);

  DistillConfig config_;
  const Decoder& decoder_;
  std::size_t vocabulary_;
  Isa isa_;
  std::vector<std::size_t> kept_blocks_{};
  std::size_t attention_block_ = static_cast<std::size_t>(-1);
  MatrixF last_{};
  std::vector<MatrixF> streams_{};
  AttentionRows attention_{};
};

// The k largest logits of one row, as select_top_k() has them.
struct StoredRow {
  std::span<const std::uint32_t> ids{};  // [k]
  std::span<const float> values{};       // [k]
  float log_rest = 0;
};

// Rows of token t of a sequence of packed data.
using StoredRows = std::function<StoredRow(
    const TrainingData& data, std::size_t sequence, std::size_t token)>;

class StoredTeacher final : public Teacher {
 public:
  StoredTeacher(const DistillConfig& config, StoredRows rows,
                std::size_t vocabulary, Isa isa);

  std::size_t vocabulary() const override { return vocabulary_; }
  void read(const TrainingBatch& batch, ThreadPool& pool) override;
  double divergence(std::size_t first, ConstMatrixView Z,
                    std::span<const float> row_weights, MatrixView<float> G,
                    ThreadPool& pool) const override;

 private:
  DistillConfig config_;
  StoredRows rows_;
  std::size_t vocabulary_;
  Isa isa_;
  const TrainingData* data_ = nullptr;  // of the batch
  std::vector<std::size_t> sequences_{};
};

}  // namespace llmpress
