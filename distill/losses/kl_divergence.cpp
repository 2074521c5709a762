#include "distill/losses/kl_divergence.h"

#include <cassert>
#include <cmath>
#include <cstddef>

#include "compress/core/formatted.h"
#include "distill/losses/row_divergence.h"
#include "distill/losses/row_softmax.h"
#include "distill/losses/weighted_rows.h"

namespace llmpress {
namespace {

void check(const DivergenceConfig& config) {
  if (!(config.temperature > 0 && std::isfinite(config.temperature))) {
    fail(ErrorCode::kInvalidArgument, "divergence: temperature {}, wanted > 0",
         config.temperature);
  }
  if (config.kind == DivergenceKind::kJensenShannon &&
      !(config.beta >= 0 && config.beta <= 1)) {
    fail(ErrorCode::kInvalidArgument, "divergence: beta {}, wanted 0 to 1",
         config.beta);
  }
}

DivergenceKind kind_of(const DivergenceConfig& config) {
  if (config.kind != DivergenceKind::kJensenShannon) return config.kind;
  if (config.beta == 0) return DivergenceKind::kForward;
  if (config.beta == 1) return DivergenceKind::kReverse;
  return DivergenceKind::kJensenShannon;
}

// The softmaxes of one row of both, and memory for one row more.
struct Rows {
  SoftmaxRow q, p;
  std::span<float> scratch;

  Rows(std::span<const float> student, std::span<const float> teacher,
       float temperature, Scratch& memory, const LossKernels& kernels) {
    const std::size_t n = student.size();
    const auto all = memory.floats((temperature == 1 ? 3 : 5) * n);
    const auto piece = [&](std::size_t i) { return all.subspan(i * n, n); };
    scratch = piece(0);
    if (temperature != 1) {
      student = over(student, temperature, piece(3));
      teacher = over(teacher, temperature, piece(4));
    }
    q = row_softmax(student, piece(1), kernels);
    p = row_softmax(teacher, piece(2), kernels);
  }

  static std::span<const float> over(std::span<const float> from,
                                     float temperature, std::span<float> to) {
    const float factor = 1 / temperature;
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = from[i] * factor;
    return to;
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
  const DivergenceKind kind = kind_of(config);
  const auto temperature = double{config.temperature};
  const double sum = sum_weighted_rows(
      row_weights, n, pool, [&](std::size_t r, Scratch& scratch) {
        const Rows rows(Z.row(r), teacher.row(r), config.temperature, scratch,
                        kernels);
        const double factor = double{row_weights[r]} * temperature;
        switch (kind) {
          case DivergenceKind::kForward:
            return forward_divergence(rows.q, rows.p, factor, G.row(r),
                                      kernels);
          case DivergenceKind::kReverse:
            return reverse_divergence(rows.q, rows.p, factor, G.row(r),
                                      rows.scratch, kernels);
          case DivergenceKind::kJensenShannon:
            return mixture_divergence(rows.q, rows.p, double{config.beta},
                                      factor, G.row(r), rows.scratch, kernels);
        }
        return 0.0;
      });
  return temperature * temperature * sum;
}

}  // namespace llmpress
