#include "distill/teacher.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "compress/core/formatted.h"
#include "distill/losses/kl_divergence.h"
#include "distill/losses/top_k_selection.h"

namespace llmpress {
namespace {

MatrixF first_columns(ConstMatrixView X, std::size_t columns) {
  MatrixF narrow(X.rows(), columns);
  for (std::size_t r = 0; r < X.rows(); ++r) {
    std::ranges::copy(X.row(r).first(columns), narrow.row(r).begin());
  }
  return narrow;
}

// loss(Z, G) of the first columns.
template <class Loss>
double on_columns(ConstMatrixView Z, MatrixView<float> G, std::size_t columns,
                  const Loss& loss) {
  if (Z.cols() == columns) return loss(Z, G);
  const MatrixF narrow = first_columns(Z, columns);
  MatrixF d(Z.rows(), columns);
  const double sum = loss(narrow.view(), d.view());
  for (std::size_t r = 0; r < Z.rows(); ++r) {
    const auto from = d.row(r);
    const auto to = G.row(r);
    for (std::size_t c = 0; c < columns; ++c) to[c] += from[c];
  }
  return sum;
}

std::vector<Segment> alone(const TokenBatch& batch) {
  std::vector<Segment> segments;
  for (const std::size_t rows : batch.sequences) {
    segments.push_back({.rows = rows});
  }
  return segments;
}

void check_top_k(const DistillConfig& config, std::size_t vocabulary) {
  if (config.top_k <= vocabulary) return;
  fail(ErrorCode::kInvalidArgument,
       "'top_k' is {}, but teacher and student share a vocabulary of {}",
       config.top_k, vocabulary);
}

double top_k_loss(const DistillConfig& config, const TopKTeacher& teacher,
                  ConstMatrixView Z, std::span<const float> row_weights,
                  MatrixView<float> G, ThreadPool& pool, Isa isa) {
  return top_k_divergence_loss(
      Z, teacher, row_weights,
      {config.rest, static_cast<float>(config.temperature)}, G, pool, isa);
}

}  // namespace

RunningTeacher::RunningTeacher(const DistillConfig& config,
                               const Decoder& decoder, std::size_t vocabulary,
                               Isa isa)
    : config_(config),
      decoder_(decoder),
      vocabulary_(std::min(vocabulary, decoder.architecture().vocabulary)),
      isa_(isa) {
  check_top_k(config_, vocabulary_);
}

void RunningTeacher::keep(std::size_t block, const MatrixF& stream) {
  for (std::size_t i = 0; i < kept_blocks_.size(); ++i) {
    if (kept_blocks_[i] == block) streams_[i] = stream;
  }
}

void RunningTeacher::read(const TrainingBatch& batch, ThreadPool& pool) {
  const std::vector<Segment> segments = alone(batch.input);
  streams_.assign(kept_blocks_.size(), {});
  BlockState state = decoder_.ends().begin(batch.input.tokens, segments, pool);
  for (std::size_t b = 0; b < decoder_.blocks().size(); ++b) {
    const Block& block = decoder_.blocks()[b];
    if (b == attention_block_) {
      attention_ =
          attention_rows(block, block.run_keeping(segments, state, pool));
    } else {
      block.run(segments, state, pool);
    }
    keep(b, state.hidden);
  }
  last_ = std::move(state.hidden);
}

double RunningTeacher::divergence(std::size_t first, ConstMatrixView Z,
                                  std::span<const float> row_weights,
                                  MatrixView<float> G, ThreadPool& pool) const {
  MatrixF T =
      decoder_.ends().logits(last_.view().rows_slice(first, Z.rows()), pool);
  if (T.cols() != vocabulary_) T = first_columns(T.view(), vocabulary_);
  return on_columns(
      Z, G, vocabulary_, [&](ConstMatrixView Zs, MatrixView<float> Gs) {
        if (config_.top_k == 0) {
          return divergence_loss(
              Zs, std::as_const(T).view(), row_weights,
              {config_.kind, static_cast<float>(config_.temperature),
               static_cast<float>(config_.beta)},
              Gs, pool, isa_);
        }
        const TopKRows top =
            select_top_k(std::as_const(T).view(), config_.top_k,
                         static_cast<float>(config_.temperature), pool);
        return top_k_loss(config_, top.view(), Zs, row_weights, Gs, pool, isa_);
      });
}

StoredTeacher::StoredTeacher(const DistillConfig& config, StoredRows rows,
                             std::size_t vocabulary, Isa isa)
    : config_(config),
      rows_(std::move(rows)),
      vocabulary_(vocabulary),
      isa_(isa) {
  assert(config_.top_k > 0);
  check_top_k(config_, vocabulary_);
}

void StoredTeacher::read(const TrainingBatch& batch, ThreadPool&) {
  assert(batch.data != nullptr);
  data_ = batch.data;
  sequences_ = batch.indices;
}

double StoredTeacher::divergence(std::size_t first, ConstMatrixView Z,
                                 std::span<const float> row_weights,
                                 MatrixView<float> G, ThreadPool& pool) const {
  TopKRows top{Matrix<std::uint32_t>(Z.rows(), config_.top_k),
               MatrixF(Z.rows(), config_.top_k), std::vector<float>(Z.rows())};
  const std::size_t length = data_->sequence_length();
  for (std::size_t r = 0; r < Z.rows(); ++r) {
    if (row_weights[r] == 0) continue;
    const std::size_t at = first + r;
    const StoredRow row =
        rows_(*data_, sequences_.at(at / length), at % length);
    std::ranges::copy(row.ids, top.ids.row(r).begin());
    std::ranges::copy(row.values, top.values.row(r).begin());
    top.log_rest[r] = row.log_rest;
  }
  return on_columns(
      Z, G, vocabulary_, [&](ConstMatrixView Zs, MatrixView<float> Gs) {
        return top_k_loss(config_, top.view(), Zs, row_weights, Gs, pool, isa_);
      });
}

}  // namespace llmpress
