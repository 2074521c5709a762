#include "pruning/sparsegpt.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "pruning/mask.h"

namespace llmpress {
namespace {

constexpr std::size_t kGrain = 16;  // rows a thread takes at a time

// Chooses the mask as the solver comes to it, and zeroes by it.
class MaskChoice {
 public:
  MaskChoice(const PruneConfig& config, double sparsity, ConstMatrixView U,
             MatrixView<std::uint8_t> mask, ThreadPool& pool)
      : config_(config),
        sparsity_(sparsity),
        diagonal_(U.rows()),
        mask_(mask),
        pool_(pool) {
    for (std::size_t i = 0; i < diagonal_.size(); ++i) diagonal_[i] = U(i, i);
  }

  // Whole patterns in every block: they are chosen from weights of one block.
  std::size_t block_size() const {
    const std::size_t of = config_.patterned() ? config_.of : 1;
    return std::max(of, config_.block_size / of * of);
  }

  // One threshold for W[:, begin:end], as the authors' code has it.
  void choose_block(std::size_t begin, std::size_t end, ConstMatrixView W) {
    if (config_.patterned()) return;
    const std::size_t columns = end - begin;
    MatrixF scores(W.rows(), columns);
    Matrix<std::uint8_t> chosen(W.rows(), columns);
    pool_.for_ranges(W.rows(), kGrain, [&](std::size_t r0, std::size_t r1) {
      for (std::size_t o = r0; o < r1; ++o) {
        const auto w = W.row(o).subspan(begin, columns);
        const auto score = scores.row(o);
        for (std::size_t j = 0; j < columns; ++j) {
          score[j] = removal_cost(w[j], begin + j);
        }
      }
    });
    mask_lowest(scores.view(), rank_threshold_count(scores.size(), sparsity_),
                chosen.view(), pool_);
    pool_.for_ranges(W.rows(), kGrain, [&](std::size_t r0, std::size_t r1) {
      for (std::size_t o = r0; o < r1; ++o) {
        std::ranges::copy(chosen.row(o), mask_.row(o).subspan(begin).begin());
      }
    });
  }

  void zero(const ColumnWindow& window, std::span<float> column) const {
    if (config_.patterned() && window.column % config_.of == 0) {
      choose_pattern(window);
    }
    for (std::size_t r = 0; r < window.rows; ++r) {
      if (mask_(window.begin_row + r, window.column) == 0) column[r] = 0;
    }
  }

 private:
  // The square root of w^2 / U_ii^2: the same order, and no overflow.
  float removal_cost(float w, std::size_t i) const {
    return std::abs(w) / diagonal_[i];
  }

  void choose_pattern(const ColumnWindow& window) const {
    const std::size_t first = window.column;
    const std::size_t size = std::min(config_.of, window.block_end - first);
    std::vector<float> scores(size);
    for (std::size_t r = 0; r < window.rows; ++r) {
      for (std::size_t j = 0; j < size; ++j) {
        scores[j] = removal_cost(window.at(first + j)[r], first + j);
      }
      mask_pattern(scores, config_.keep, config_.of,
                   mask_.row(window.begin_row + r).subspan(first, size));
    }
  }

  const PruneConfig& config_;
  double sparsity_;
  std::vector<float> diagonal_;  // of U [in]
  MatrixView<std::uint8_t> mask_;
  ThreadPool& pool_;
};

ColumnCompressor mask_then(MaskChoice& choice, const ColumnCompressor& then) {
  return {.begin_block =
              [&](std::size_t begin, std::size_t end, ConstMatrixView W) {
                choice.choose_block(begin, end, W);
                if (then.begin_block) then.begin_block(begin, end, W);
              },
          .compress =
              [&](const ColumnWindow& window, std::span<float> column) {
                choice.zero(window, column);
                if (then.compress) then.compress(window, column);
              }};
}

// tr((W - Q) S (W - Q)^T) / out from the solver's tr((W - Q) (2 S + damping)
// (W - Q)^T). Weights on dead channels do not count.
double undamped_error(ConstMatrixView W, ConstMatrixView Q, double damped,
                      const DampedInverse& inverse, ThreadPool& pool) {
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
  double sum = 0;
  for (const double row : squares) sum += row;
  return std::max(0.0, (damped - inverse.damping * sum) / 2) /
         static_cast<double>(W.rows());
}

}  // namespace

PruneResult prune_sparsegpt(const PruneRequest& request,
                            const ColumnCompressor& then) {
  // 2 S, as GPTQ scales it: the diagonal that dead channels get is 1.
  return prune_sparsegpt(
      request,
      damped_inverse_cholesky(request.stats->second_moment.view(), 2.0f,
                              request.config->damping(), *request.pool,
                              request.name),
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
  MaskChoice choice(*request.config, request.sparsity, inverse.U.view(),
                    result.mask.view(), *request.pool);
  const ColumnSolution solution = solve_columns_in_place(
      result.W.view(), inverse.U.view(), mask_then(choice, then),
      {.block_size = choice.block_size()}, *request.pool);
  result.sparsity = sparsity_of(result.mask.view());
  result.output_error = {
      undamped_error(W, result.W.view(), solution.squared_error, inverse,
                     *request.pool),
      ErrorBasis::kSecondMoment};
  return result;
}

}  // namespace llmpress
