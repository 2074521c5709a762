// What many batches of tokens are behind the last block of a model whose blocks
// are not in memory: all batches go through a block before the next is loaded,
// so that the weights are read once.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "compress/calibration/batch_store.h"
#include "compress/core/progress.h"
#include "compress/model/decoder.h"

namespace llmpress {

class StreamedStates {
 public:
  // `decoder` must outlive this. `scratch`: a folder for all batches but one.
  StreamedStates(const Decoder& decoder, std::filesystem::path scratch)
      : decoder_(&decoder), store_(std::move(scratch)) {}

  void add(std::span<const TokenId> tokens, std::vector<Segment> segments,
           ThreadPool& pool);
  // Batch b from now on gives what decoder.forward() would give for it.
  void run(ThreadPool& pool, const Progress& progress);
  // [tokens, hidden] of a batch; good until another is asked for.
  const MatrixF& hidden(std::size_t b) const {
    return store_.read(b).state.hidden;
  }

 private:
  const Decoder* decoder_;
  BatchStore store_;
};

}  // namespace llmpress
