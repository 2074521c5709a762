#include "compress/kernels/linear_kernel.h"

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include "compress/core/hadamard.h"
#include "compress/core/linalg.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTile = 128;

std::span<const std::uint32_t> outlier_columns(const PackedWeight& weight) {
  const auto* const int8 = std::get_if<Int8Weight>(&weight);
  if (int8 == nullptr) return {};
  return int8->outlier_columns;
}

// Decodes some rows of W at a time and multiplies in float32.
class DecodingLinear final : public LinearKernel {
 public:
  DecodingLinear(const LinearWeights& linear, Isa isa)
      : linear_(linear),
        out_(rows_of(linear.weight)),
        in_(cols_of(linear.weight)),
        bytes_(stored_bytes(linear.weight)),
        name_(describe(linear.weight) + "/" + std::string(isa_name(isa))) {}

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override {
    assert(X.cols() == in_ && Y.cols() == out_ && X.rows() == Y.rows());
    MatrixF prepared;
    if (linear_.input_hadamard != 0 ||
        linear_.input.kind != ActivationQuant::Kind::kNone) {
      prepared = MatrixF(X);
      if (linear_.input_hadamard != 0) {
        hadamard_rows_in_place(prepared.view(), linear_.input_hadamard, pool);
      }
      quantize_activations_in_place(linear_.input, prepared.view(),
                                    outlier_columns(linear_.weight));
      X = prepared.view();
    }
    MatrixF W(std::min(kRowsPerTile, out_), in_);
    MatrixF tile(X.rows(), std::min(kRowsPerTile, out_));
    for (std::size_t o = 0; o < out_; o += kRowsPerTile) {
      const std::size_t rows = std::min(kRowsPerTile, out_ - o);
      const auto w = W.view().rows_slice(0, rows);
      dequantize_rows(linear_.weight, o, w);
      MatrixView<float> t(tile.data().first(X.rows() * rows), X.rows(), rows);
      matmul_transposed(X, w, t, pool);
      for (std::size_t r = 0; r < X.rows(); ++r) {
        std::copy_n(t.row(r).begin(), rows,
                    Y.row(r).begin() + static_cast<std::ptrdiff_t>(o));
      }
    }
    if (linear_.bias.empty()) return;
    for (std::size_t r = 0; r < Y.rows(); ++r) {
      for (std::size_t o = 0; o < out_; ++o) Y(r, o) += linear_.bias[o];
    }
  }

  std::size_t out() const override { return out_; }
  std::size_t in() const override { return in_; }
  std::size_t bytes() const override { return bytes_; }
  std::string_view name() const override { return name_; }

 private:
  LinearWeights linear_;
  std::size_t out_, in_, bytes_;
  std::string name_;
};

}  // namespace

std::unique_ptr<LinearKernel> make_linear_kernel(const LinearWeights& linear,
                                                 Isa isa) {
  return std::make_unique<DecodingLinear>(linear, isa);
}

}  // namespace llmpress
