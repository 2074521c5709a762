// What batches of tokens are behind the last block of a model whose blocks are
// on several ranks (Decoder::Options::stages): while a rank has one batch, the
// rank before it has the next, so that all of them work.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "compress/model/decoder.h"

namespace llmpress {

class StagedStates {
 public:
  // Segments without a cache.
  struct Batch {
    std::vector<TokenId> tokens{};
    std::vector<Segment> segments{};
  };
  // `decoder` must outlive this. All of its stages have the same batches.
  StagedStates(const Decoder& decoder, std::vector<Batch> batches)
      : decoder_(&decoder), batches_(std::move(batches)) {}

  // What decoder.forward() gives for the next batch, [tokens, hidden], on every
  // rank. Collective.
  MatrixF next(ThreadPool& pool);

 private:
  // Every stage its batch, if there is one; the last one's is done.
  MatrixF step(ThreadPool& pool);

  const Decoder* decoder_;
  std::vector<Batch> batches_;
  std::size_t steps_ = 0;
  std::string received_{};  // of the stage before
};

}  // namespace llmpress
