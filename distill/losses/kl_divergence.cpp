#include "distill/losses/kl_divergence.h"

#include <cassert>
#include <cmath>
#include <cstddef>

#include "compress/core/formatted.h"
#include "distill/losses/row_divergence.h"
#include "distill/losses/weighted_rows.h"

namespace llmpress {
namespace {

void check(const DivergenceConfig& config) {
  if (!(config.temperature > 0 && std::isfinite(config.temperature))) {
    fail(ErrorCode::kInvalidArgument, "divergence: temperature {}, wanted > 0",
         config.temperature);
  }
  if (config.kind == Divergence::kJensenShannon &&
      !(config.beta >= 0 && config.beta <= 1)) {
    fail(ErrorCode::kInvalidArgument, "divergence: beta {}, wanted 0 to 1",
         config.beta);
  }
}

Divergence kind_of(const DivergenceConfig& config) {
  if (config.kind != Divergence::kJensenShannon) return config.kind;
  if (config.beta == 0) return Divergence::kForward;
  if (config.beta == 1) return Divergence::kReverse;
  return Divergence::kJensenShannon;
}

// The two rows over the temperature, copied only where that changes them.
struct Rows {
  std::span<const float> z, t;
  std::span<float> scratch;  // one row more, if asked for

  Rows(std::span<const float> student, std::span<const float> teacher,
       float temperature, std::vector<float>& memory, bool one_more)
      : z(student), t(teacher) {
    const std::size_t n = z.size();
    const bool copied = temperature != 1;
    memory.resize((copied ? 2 * n : 0) + (one_more ? n : 0));
    if (copied) {
      const float factor = 1 / temperature;
      for (std::size_t i = 0; i < n; ++i) {
        memory[i] = z[i] * factor;
        memory[n + i] = t[i] * factor;
      }
      z = std::span<const float>(memory).first(n);
      t = std::span<const float>(memory).subspan(n, n);
    }
    if (one_more) scratch = std::span<float>(memory).last(n);
  }
};

}  // namespace

double divergence_loss(ConstMatrixView Z, ConstMatrixView teacher,
                       std::span<const float> row_weights,
                       const DivergenceConfig& config, MatrixView<float> G,
                       ThreadPool& pool, Isa isa) {
  const std::size_t n = Z.cols();
  assert(row_weights.size() == Z.rows() && teacher.rows() == Z.rows() &&
         teacher.cols() == n && G.rows() == Z.rows() && G.cols() == n);
  check(config);
  const LossKernels& kernels = loss_kernels(isa);
  const Divergence kind = kind_of(config);
  const auto temperature = double{config.temperature};
  const double sum = sum_weighted_rows(
      row_weights, n, pool, [&](std::size_t r, std::vector<float>& scratch) {
        const Rows rows(Z.row(r), teacher.row(r), config.temperature, scratch,
                        kind != Divergence::kForward);
        const double factor = double{row_weights[r]} * temperature;
        switch (kind) {
          case Divergence::kForward:
            return forward_divergence(rows.z, rows.t, factor, G.row(r),
                                      kernels);
          case Divergence::kReverse:
            return reverse_divergence(rows.z, rows.t, factor, G.row(r),
                                      rows.scratch, kernels);
          case Divergence::kJensenShannon:
            return mixture_divergence(rows.z, rows.t, double{config.beta},
                                      factor, G.row(r), rows.scratch, kernels);
        }
        return 0.0;
      });
  return temperature * temperature * sum;
}

}  // namespace llmpress
