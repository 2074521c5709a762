// Healing: when inputs D of a Linear are removed and inputs K stay, its kept
// weights take over what the removed ones did, as far as the kept inputs can
// tell (least squares, no training). With S = E[x x^T] [in, in] of the full
// input,
//
//   W' = W_K + W_D S_DK (S_KK + damping I)^-1
//
// minimizes  E|W x - W' x_K|^2 + damping |W' - W_K|^2, so the error is never
// larger than that of plain removal (W' = W_K), whatever the damping. It is the
// closed form of what SparseGPT and ZipLM (arXiv:2302.04089) do step by step.
//
// The general case, refit(): a Linear whose input has become z should give y.
// With the residual r = y - W z of the weight as it is,
//
//   W' = W + E[r z^T] (E[z z^T] + damping I)^-1
//
// minimizes  E|y - W' z|^2 + damping |W' - W|^2. It serves where removals
// before the Linear changed its input, and where y is what the whole residual
// stream should be: then the Linear also makes up for what went elsewhere.
//
// Cost: a factorization and two solves, |K|^3 / 3 + |K|^2 (|D| + out); the
// moments of refit(), tokens * |K| * (|K| + out).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/damping.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct Healed {
  MatrixF W{};  // [out, kept]
  // E|y - y'|^2 / out over calibration tokens, of plain removal and of W.
  double error_removed = 0, error_healed = 0;
  double damping_fraction = 0;  // of mean(diag S_KK), that was needed
  std::vector<std::string> notes{};
};

// W [out, in], S [in, in], `kept` ascending input indices. Throws
// Error(kInvalidArgument) for shapes that do not fit or no kept input, and
// Error(kNumeric, "<name>: ...") if S cannot be factored under the policy.
Healed heal(ConstMatrixView W, ConstMatrixView S,
            std::span<const std::size_t> kept, const DampingConfig& damping,
            ThreadPool& pool, std::string_view name);

// What refit() knows of z [tokens, in] and r [tokens, out].
struct ResidualMoments {
  MatrixF S{};        // E[z z^T] [in, in]
  MatrixF R{};        // E[r z^T] [out, in]
  double energy = 0;  // E|r|^2
};

// Accumulates them over batches; the result depends on the order of the batches
// but not on the number of threads.
class ResidualCollector {
 public:
  ResidualCollector(std::size_t out, std::size_t in, std::size_t total_tokens);

  // Z [rows, in], residual [rows, out].
  void add(ConstMatrixView Z, ConstMatrixView residual, ThreadPool& pool);
  ResidualMoments finish() { return std::move(moments_); }

 private:
  double weight_;  // 1 / total_tokens
  ResidualMoments moments_;
};

// W [out, in]. `error_removed` of the result is that of W. Throws as heal().
Healed refit(ConstMatrixView W, ResidualMoments moments,
             const DampingConfig& damping, ThreadPool& pool,
             std::string_view name);

}  // namespace llmpress
