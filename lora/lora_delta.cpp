#include "lora/lora_delta.h"

#include <cmath>
#include <string>

#include "compress/core/error.h"
#include "compress/core/linalg.h"

namespace llmpress {
namespace {

void check_shapes(const LoraDelta& delta, const MatrixView<float>& W) {
  const bool fits =
      delta.A.cols() == W.cols() && delta.B.rows() == W.rows() &&
      delta.A.rows() == delta.B.cols() &&
      (delta.magnitude.empty() || delta.magnitude.size() == W.rows());
  if (fits) return;
  const auto shape = [](std::size_t r, std::size_t c) {
    return "[" + std::to_string(r) + ", " + std::to_string(c) + "]";
  };
  throw Error(ErrorCode::kInvalidArgument,
              "lora: A " + shape(delta.A.rows(), delta.A.cols()) + " and B " +
                  shape(delta.B.rows(), delta.B.cols()) +
                  " do not fit a weight " + shape(W.rows(), W.cols()));
}

double row_norm(std::span<const float> row) {
  double sum = 0;
  for (const float w : row) sum += static_cast<double>(w) * w;
  return std::sqrt(sum);
}

// Rescales each row of V to the magnitude that DoRA learned.
void apply_magnitude(const std::vector<float>& magnitude, MatrixF& V) {
  for (std::size_t o = 0; o < V.rows(); ++o) {
    const double norm = row_norm(V.row(o));
    if (norm == 0) continue;  // a zero row has no direction to scale
    const auto factor = static_cast<float>(magnitude[o] / norm);
    for (float& v : V.row(o)) v *= factor;
  }
}

}  // namespace

void merge_in_place(const LoraDelta& delta, double weight, MatrixView<float> W,
                    ThreadPool& pool) {
  check_shapes(delta, W);
  const auto apply = [&](double scaling, MatrixView<float> target) {
    matmul(delta.B.view(), delta.A.view(), target, pool,
           static_cast<float>(scaling), Accumulate::kAdd);
  };
  if (delta.magnitude.empty()) {
    apply(weight * delta.scaling, W);
  } else {
    MatrixF merged{ConstMatrixView(W)};
    apply(delta.scaling, merged.view());
    apply_magnitude(delta.magnitude, merged);
    for (std::size_t i = 0; i < W.size(); ++i) {
      const double from = W.data()[i], to = merged.data()[i];
      W.data()[i] = weight == 1
                        ? merged.data()[i]
                        : static_cast<float>(from + weight * (to - from));
    }
  }
  for (const float w : W.data()) {
    if (!std::isfinite(w)) {
      throw Error(ErrorCode::kNumeric, "lora: the merged weight is not finite");
    }
  }
}

}  // namespace llmpress
