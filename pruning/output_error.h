// What a changed weight W' [out, in] does to the output of its Linear, per
// token and output:
//
//   tr((W - W') S (W - W')^T) / out,   S = E[x x^T] [in, in]
//
// with the best S that is known: the second moment; its diagonal, which is what
// Wanda sees; or the identity. Cost with the second moment: out * in * in
// multiply-adds.
#pragma once

#include "compress/core/input_stats.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

enum class ErrorBasis { kIdentity, kDiagonal, kSecondMoment };

struct OutputError {
  double value = 0;
  ErrorBasis basis = ErrorBasis::kIdentity;
};

OutputError pruned_output_error(ConstMatrixView W, ConstMatrixView W_pruned,
                                const InputStats* stats, ThreadPool& pool);

}  // namespace llmpress
