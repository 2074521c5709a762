// How much a block changes the residual stream (ShortGPT, arXiv:2403.03853,
// Eq. 1): with x_t and y_t the hidden states of token t before and after it,
//
//   influence = 1 - mean over t of  x_t . y_t / (|x_t| |y_t|)
//
// The blocks with the lowest influence are those to remove.
#pragma once

#include <cstddef>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// Accumulates over batches; the result depends on their order but not on the
// number of threads.
class BlockInfluence {
 public:
  // Both [tokens, width]. A token that is zero on one side alone has cosine 0,
  // on both sides 1.
  void add(ConstMatrixView before, ConstMatrixView after, ThreadPool& pool);

  std::size_t tokens() const { return tokens_; }
  double value() const;  // 0 .. 2; 0 before the first token

 private:
  double cosines_ = 0;
  std::size_t tokens_ = 0;
};

}  // namespace llmpress
