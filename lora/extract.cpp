#include "lora/extract.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "lora/randomized_svd.h"

namespace llmpress {
namespace {

double squared(float x) { return static_cast<double>(x) * x; }

MatrixF difference(ConstMatrixView base, ConstMatrixView tuned) {
  if (base.rows() != tuned.rows() || base.cols() != tuned.cols()) {
    throw Error(ErrorCode::kInvalidArgument,
                "extract: weights of different shapes");
  }
  MatrixF D(base.rows(), base.cols());
  for (std::size_t i = 0; i < D.size(); ++i) {
    D.data()[i] = tuned.data()[i] - base.data()[i];
    if (!std::isfinite(D.data()[i])) {
      fail(ErrorCode::kNumeric,
           "extract: the difference is not finite at [{}, {}]", i / D.cols(),
           i % D.cols());
    }
  }
  return D;
}

std::size_t smaller_side(const MatrixF& D) {
  return std::min(D.rows(), D.cols());
}

double energy_of(std::span<const float> s) {
  double energy = 0;
  for (const float value : s) energy += squared(value);
  return energy;
}

// As many singular values as `config` can ask for.
Svd decompose(const MatrixF& D, double total, const ExtractConfig& config,
              ThreadPool& pool) {
  constexpr std::size_t kFirstRank = 32;  // where energy decides
  const std::size_t side = smaller_side(D);
  const std::size_t most =
      config.rank == 0 ? side : std::min(config.rank, side);
  std::size_t rank = config.energy == 1 ? most : std::min(most, kFirstRank);
  // Beyond a quarter of all values the exact way is not slower.
  while (side > config.exact_side && rank <= side / 4) {
    Svd svd =
        randomized_svd(D.view(), {.rank = rank, .seed = config.seed}, pool);
    svd.s.resize(std::min(rank, svd.s.size()));  // the rest is rough
    if (rank == most || energy_of(svd.s) >= config.energy * total) return svd;
    rank = std::min(most, 2 * rank);
  }
  return thin_svd(D.view());
}

struct Cut {
  std::size_t rank = 0;
  double energy = 0;  // sum of s^2 up to it
};

Cut choose_rank(std::span<const float> s, std::size_t larger_side, double total,
                const ExtractConfig& config) {
  // Singular values below this are the rounding of the weights themselves.
  const double noise =
      s.empty()
          ? 0
          : static_cast<double>(s[0]) * static_cast<double>(larger_side) *
                static_cast<double>(std::numeric_limits<float>::epsilon()) / 2;
  Cut cut;
  const std::size_t most =
      config.rank == 0 ? s.size() : std::min(config.rank, s.size());
  while (cut.rank < most && s[cut.rank] > noise &&
         (config.energy == 1 || cut.energy < config.energy * total)) {
    cut.energy += squared(s[cut.rank]);
    ++cut.rank;
  }
  return cut;
}

}  // namespace

void check(const ExtractConfig& config) {
  if (config.energy > 0 && config.energy <= 1 &&
      (config.rank >= 1 || config.energy < 1)) {
    return;
  }
  fail(ErrorCode::kInvalidArgument,
       "extract: rank {} and energy {}, wanted an energy above 0 and at most "
       "1, and a rank unless the energy is below 1",
       config.rank, config.energy);
}

ExtractedLora extract_lora(ConstMatrixView base, ConstMatrixView tuned,
                           const ExtractConfig& config, ThreadPool& pool) {
  check(config);
  const MatrixF D = difference(base, tuned);
  double total = 0;
  for (const float d : D.data()) total += squared(d);
  if (total == 0) return {.A = MatrixF(0, D.cols()), .B = MatrixF(D.rows(), 0)};

  const Svd svd = decompose(D, total, config, pool);
  const Cut cut =
      choose_rank(svd.s, std::max(D.rows(), D.cols()), total, config);
  ExtractedLora lora{.A = MatrixF(cut.rank, D.cols()),
                     .B = MatrixF(D.rows(), cut.rank),
                     .captured_energy = std::min(1.0, cut.energy / total),
                     .change_norm = std::sqrt(total)};
  for (std::size_t k = 0; k < cut.rank; ++k) {
    const double root = std::sqrt(static_cast<double>(svd.s[k]));
    for (std::size_t i = 0; i < D.cols(); ++i) {
      lora.A(k, i) = static_cast<float>(root * svd.V(i, k));
    }
    for (std::size_t o = 0; o < D.rows(); ++o) {
      lora.B(o, k) = static_cast<float>(root * svd.U(o, k));
    }
  }
  return lora;
}

}  // namespace llmpress
