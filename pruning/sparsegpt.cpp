#include "pruning/sparsegpt.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "pruning/mask.h"
#include "pruning/sparsegpt_mask.h"

namespace llmpress {
namespace {

constexpr std::size_t kGrain = 16;  // rows a thread takes at a time

// H = 2 S, as GPTQ scales it: the diagonal that dead channels get is 1.
constexpr float kHessianScale = 2;

constexpr double kLeastShareLeft = 0.1;

// tr((W - Q) S (W - Q)^T) / out from the solver's tr((W - Q) (2 S + damping)
// (W - Q)^T). Weights on dead channels do not count. Nothing where so little is
// left after subtraction that rounding would show.
std::optional<double> undamped_error(ConstMatrixView W, ConstMatrixView Q,
                                     double damped,
                                     const DampedInverse& inverse,
                                     ThreadPool& pool) {
  std::vector<double> squares(W.rows());
  pool.for_ranges(W.rows(), kGrain, [&](std::size_t begin, std::size_t end) {
    for (std::size_t o = begin; o < end; ++o) {
      const auto squared = [&](std::size_t i) {
        const double e =
            static_cast<double>(W(o, i)) - static_cast<double>(Q(o, i));
        return e * e;
      };
      for (std::size_t i = 0; i < W.cols(); ++i) squares[o] += squared(i);
      for (const std::size_t i : inverse.dead) squares[o] -= squared(i);
    }
  });
  double rest = damped;
  for (const double row : squares) rest -= inverse.damping * row;
  if (!(rest > kLeastShareLeft * damped)) return std::nullopt;
  return rest / kHessianScale / static_cast<double>(W.rows());
}

}  // namespace

PruneResult prune_sparsegpt(const PruneRequest& request,
                            const ColumnCompressor& then) {
  SharedInverse own;
  SharedInverse& shared = request.inverse == nullptr ? own : *request.inverse;
  return prune_sparsegpt(
      request,
      shared.get(request.stats->second_moment.view(), kHessianScale,
                 request.config->damping(), *request.pool, request.name),
      then);
}

PruneResult prune_sparsegpt(const PruneRequest& request,
                            const DampedInverse& inverse,
                            const ColumnCompressor& then) {
  const ConstMatrixView W = request.W;
  PruneResult result;
  result.W = MatrixF(W);
  result.mask = Matrix<std::uint8_t>(W.rows(), W.cols());
  result.damping_fraction = inverse.damping_fraction;
  result.notes = inverse.notes();
  std::ranges::fill(result.mask.data(), std::uint8_t{1});
  if (W.size() == 0) return result;
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (const std::size_t i : inverse.dead) result.W(o, i) = 0;
  }
  SparseGptMask mask(*request.config, request.sparsity, inverse.U.view(),
                     result.mask.view(), *request.pool);
  const ColumnSolution solution = solve_columns_in_place(
      result.W.view(), inverse.U.view(), in_sequence(mask.compressor(), then),
      {.block_size = mask.block_size()}, *request.pool);
  result.sparsity = sparsity_of(result.mask.view());
  const auto error = undamped_error(W, result.W.view(), solution.squared_error,
                                    inverse, *request.pool);
  result.output_error = error
                            ? OutputError{*error, ErrorBasis::kSecondMoment}
                            : pruned_output_error(W, result.W.view(),
                                                  request.stats, *request.pool);
  return result;
}

}  // namespace llmpress
