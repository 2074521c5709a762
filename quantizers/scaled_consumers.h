// A set of Linears that read the same input, whose channels a scaling method
// (AWQ, SmoothQuant) multiplies by s in the weights and divides by s in front:
//   W x = (W diag(s)) (diag(1/s) x)
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "compress/core/input_stats.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

// Views of W_k [out_k, in]; all have the same `in`.
using Consumers = std::vector<ConstMatrixView>;

// Error of the output if the consumers had these weights [out_k, in], for the
// same input as before. Smaller is better; not finite counts as worst.
using OutputObjective =
    std::function<double(const std::vector<MatrixF>& candidate_weights)>;

// On how many tokens an objective is measured: some, to tell good candidates from
// bad ones, or all that candidates are tried on, to tell the best.
enum class ObjectiveTokens { kFew, kAll };

// One group whose scales are sought.
struct ScaleRequest {
  const Consumers& consumers;
  const InputStats& stats;  // what the row's `scale_needs` asked for
  // The grid, the settings, and what rounds afterwards.
  const QuantizeConfig& config;
  // Makes the error of the output of the module that the group feeds; dear.
  std::function<OutputObjective(ObjectiveTokens)> module_objective;
  ThreadPool& pool;
  // Who has the same request and tries candidates in turn.
  Ranks ranks{};
};

struct FoundScales {
  std::vector<float> s{};  // [in]
  // Rounding error without and with them; -1: not measured.
  double identity_error = -1, error = -1;
};

// sum over consumers of |X (W' - W)^T|^2 / tokens, X [tokens, in] sample rows.
// The views must outlive the function.
OutputObjective sample_objective(Consumers consumers, ConstMatrixView X,
                                 ThreadPool& pool);

// The same from the second moment S [in, in], over all tokens.
OutputObjective moment_objective(Consumers consumers, ConstMatrixView S,
                                 ThreadPool& pool);

// W diag(s), with which a consumer is replaced once s is chosen.
MatrixF scale_columns(ConstMatrixView W, std::span<const float> s);
// W diag(1/s), or a norm's gain or rows of the producer: see scale_rows.
MatrixF unscale_columns(ConstMatrixView W, std::span<const float> s);
// diag(1/s) W: the last s.size() rows of the producer of the input; a bias is a
// matrix of one column.
void unscale_rows_in_place(MatrixView<float> W, std::span<const float> s);
void unscale_in_place(std::span<float> gain, std::span<const float> s);

// Throws Error(kInvalidArgument) unless the consumers agree on `in` and the
// vector of that name has it.
void check_consumers(std::span<const ConstMatrixView> consumers,
                     std::span<const float> per_channel, const char* what);

}  // namespace llmpress
