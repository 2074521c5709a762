#include "compress/kernels/linear_kernel.h"

#include <algorithm>
#include <cassert>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/hadamard.h"
#include "compress/core/linalg.h"
#include "compress/kernels/activation_rounding.h"
#include "compress/kernels/dense_product.h"
#include "compress/kernels/panel_product.h"
#include "compress/kernels/reference_linear.h"
#include "compress/kernels/rounded_product.h"
#include "compress/kernels/sparse_product.h"

namespace llmpress {
namespace {

using Kind = ActivationQuant::Kind;

// Columns of W [out, in] as rows [columns, out]: what multiplies the inputs
// that stay in floating point.
MatrixF decode_columns(const PanelWeight& W,
                       std::span<const std::uint32_t> columns,
                       std::span<const std::uint32_t> place_of,
                       ThreadPool& pool) {
  MatrixF rows(columns.size(), W.out);
  pool.for_ranges(W.out, 256, [&](std::size_t begin, std::size_t end) {
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const std::size_t k =
          place_of.empty() ? columns[c] : place_of[columns[c]];
      if (k == kPadding) continue;
      const auto block = std::find_if(
          W.blocks.begin(), W.blocks.end(),
          [k](const PanelBlock& b) { return k >= b.begin && k < b.end; });
      for (std::size_t o = begin; o < end; ++o) {
        const auto steps = static_cast<float>(panel_code(W, o, k) -
                                              panel_zero(W, o, block->group));
        rows(c, o) = panel_scale(W, o, block->group) * steps;
      }
    }
  });
  return rows;
}

// Y += X[:, columns] rows, columns ascending; plain operations, so that every
// instruction set gives the same bits.
void add_columns(ConstMatrixView X, std::span<const std::uint32_t> columns,
                 ConstMatrixView rows, MatrixView<float> Y, ThreadPool& pool) {
  pool.for_each(X.rows(), [&](std::size_t t) {
    const auto y = Y.row(t);
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const float x = X(t, columns[c]);
      const auto w = rows.row(c);
      for (std::size_t o = 0; o < y.size(); ++o) y[o] += x * w[o];
    }
  });
}

void add_bias(std::span<const float> bias, MatrixView<float> Y) {
  for (std::size_t t = 0; t < Y.rows(); ++t) {
    const auto y = Y.row(t);
    for (std::size_t o = 0; o < y.size(); ++o) y[o] += bias[o];
  }
}

// What every kernel does around its product: the rotation before, the columns
// in floating point and the bias after.
class PreparedLinear : public LinearKernel {
 public:
  PreparedLinear(LinearFrame frame, Isa isa)
      : frame_(std::move(frame)),
        isa_(isa),
        integer_(frame_.multiplies_integers()),
        name_(formatted("{}/{}", frame_.weight_name, isa_name(isa))) {
    if (integer_) name_ += "/a" + std::to_string(frame_.input.bits);
  }

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override {
    assert(X.cols() == in() && Y.cols() == out() && X.rows() == Y.rows());
    if (X.rows() == 0) return;
    MatrixF own;
    const std::size_t hadamard = frame_.input_hadamard;
    if (hadamard != 0 || (input().kind != Kind::kNone && !integer_)) {
      own = MatrixF(X);
      X = own.view();
    }
    if (hadamard != 0) hadamard_rows_in_place(own.view(), hadamard, pool);
    if (integer_) {
      multiply_int(X, round_activations(input(), X, outliers(), pool, isa_), Y,
                   pool);
    } else {
      if (input().kind != Kind::kNone) {
        round_activations_in_place(input(), own.view(), outliers(), pool);
      }
      multiply(X, Y, pool);
    }
    if (!frame_.bias.empty()) add_bias(frame_.bias, Y);
  }

  std::size_t out() const override { return frame_.out; }
  std::size_t in() const override { return frame_.in; }
  std::string_view name() const override { return name_; }
  bool integer_activations() const override {
    return integer_ || rounds_for_speed_;
  }

 protected:
  // Y = X W^T.
  virtual void multiply(ConstMatrixView X, MatrixView<float> Y,
                        ThreadPool& pool) const = 0;
  // Y = the same with `codes` for X but for the columns codes.exact_columns.
  virtual void multiply_int(ConstMatrixView X, const IntActivations& codes,
                            MatrixView<float> Y, ThreadPool& pool) const = 0;

  bool integer() const { return integer_; }
  void round_for_speed() {
    rounds_for_speed_ = true;
    name_ += "/x8";
  }
  bool rounds_for_speed() const { return rounds_for_speed_; }
  std::span<const std::uint32_t> outliers() const {
    return frame_.outlier_columns;
  }
  const ActivationQuant& input() const { return frame_.input; }
  Isa isa() const { return isa_; }
  std::size_t own_bytes() const { return frame_.bias.size() * sizeof(float); }

 private:
  LinearFrame frame_;
  Isa isa_;
  bool integer_, rounds_for_speed_ = false;
  std::string name_;
};

class ViewingLinear final : public PreparedLinear {
 public:
  ViewingLinear(ConstMatrixView W, const LinearWeights& around, Isa isa)
      : PreparedLinear({.out = W.rows(),
                        .in = W.cols(),
                        .weight_name = "f32",
                        .bias = around.bias,
                        .input = around.input,
                        .input_hadamard = around.input_hadamard},
                       isa),
        W_(W) {}
  std::size_t bytes() const override { return own_bytes(); }

 protected:
  void multiply(ConstMatrixView X, MatrixView<float> Y,
                ThreadPool& pool) const override {
    dense_product_transposed(X, W_, Y, Accumulate::kOverwrite, pool, isa());
  }
  void multiply_int(ConstMatrixView, const IntActivations&, MatrixView<float>,
                    ThreadPool&) const override {
    throw std::logic_error("a dense weight has no codes");
  }

 private:
  ConstMatrixView W_;
};

// The plain version, on the weight as it is stored.
class ReferenceLinear final : public PreparedLinear {
 public:
  explicit ReferenceLinear(const LinearWeights& linear)
      : PreparedLinear(frame_of(linear), Isa::kScalar),
        weight_(linear.weight) {}

  std::size_t bytes() const override {
    return stored_bytes(weight_) + own_bytes();
  }

 protected:
  void multiply(ConstMatrixView X, MatrixView<float> Y,
                ThreadPool& pool) const override {
    multiply_reference(weight_, X, Y, pool);
  }
  void multiply_int(ConstMatrixView X, const IntActivations& codes,
                    MatrixView<float> Y, ThreadPool& pool) const override {
    multiply_reference_int(weight_, codes, Y, pool);
    MatrixF rows(codes.exact_columns.size(), out()), w(1, in());
    for (std::size_t o = 0; o < out() && rows.rows() > 0; ++o) {
      dequantize_rows(weight_, o, w.view());
      for (std::size_t c = 0; c < rows.rows(); ++c) {
        rows(c, o) = w(0, codes.exact_columns[c]);
      }
    }
    add_columns(X, codes.exact_columns, rows.view(), Y, pool);
  }

 private:
  PackedWeight weight_;
};

// Decodes some rows at a time for the product of core: formats without a
// layout.
class DecodingLinear final : public PreparedLinear {
 public:
  DecodingLinear(const LinearWeights& linear, Isa isa)
      : PreparedLinear(frame_of(linear), isa), weight_(linear.weight) {}

  std::size_t bytes() const override {
    return stored_bytes(weight_) + own_bytes();
  }

 protected:
  void multiply(ConstMatrixView X, MatrixView<float> Y,
                ThreadPool& pool) const override {
    constexpr std::size_t kRowsPerTile = 128;
    MatrixF w(std::min(kRowsPerTile, out()), in());
    MatrixF tile(X.rows(), w.rows());
    for (std::size_t o = 0; o < out(); o += kRowsPerTile) {
      const std::size_t count = std::min(kRowsPerTile, out() - o);
      const auto rows = w.view().rows_slice(0, count);
      pool.for_ranges(count, 8, [&](std::size_t begin, std::size_t end) {
        dequantize_rows(weight_, o + begin,
                        rows.rows_slice(begin, end - begin));
      });
      const MatrixView<float> t(tile.data().first(X.rows() * count), X.rows(),
                                count);
      matmul_transposed(X, rows, t, pool);
      for (std::size_t r = 0; r < X.rows(); ++r) {
        std::copy_n(t.row(r).data(), count, Y.row(r).data() + o);
      }
    }
  }
  void multiply_int(ConstMatrixView, const IntActivations&, MatrixView<float>,
                    ThreadPool&) const override {
    assert(false);  // weights with integer codes have a layout
  }

 private:
  PackedWeight weight_;
};

class SparseLinear final : public PreparedLinear {
 public:
  SparseLinear(LinearFrame frame, SparsePanels panels, Isa isa)
      : PreparedLinear(std::move(frame), isa), panels_(std::move(panels)) {}

  std::size_t bytes() const override { return panels_.bytes() + own_bytes(); }

 protected:
  void multiply(ConstMatrixView X, MatrixView<float> Y,
                ThreadPool& pool) const override {
    multiply_sparse(panels_, X, Y, pool, isa());
  }
  void multiply_int(ConstMatrixView, const IntActivations&, MatrixView<float>,
                    ThreadPool&) const override {
    assert(false);  // has_integer_codes is false
  }

 private:
  SparsePanels panels_;
};

class PanelLinear final : public PreparedLinear {
 public:
  PanelLinear(LaidOutLinear linear, Isa isa, InputPrecision inputs)
      : PreparedLinear(std::move(linear.frame), isa),
        panels_(std::get<PanelWeight>(std::move(linear.weight))),
        outlier_rows_(std::move(linear.outlier_rows)),
        code_sums_(std::move(linear.code_sums)) {
    if (inputs == InputPrecision::kInt8 && input().kind == Kind::kNone &&
        takes_rounded_inputs(panels_)) {
      round_for_speed();
    }
    if (!integer()) return;
    if (!panels_.gather.empty() && input().outlier_threshold > 0) {
      place_of_.assign(in(), kPadding);
      for (std::size_t k = 0; k < panels_.depth; ++k) {
        if (panels_.gather[k] != kPadding) {
          place_of_[panels_.gather[k]] = static_cast<std::uint32_t>(k);
        }
      }
    }
  }

  std::size_t bytes() const override {
    return panels_.bytes() + outlier_rows_.size() * sizeof(float) +
           code_sums_.size() * sizeof(std::int32_t) + own_bytes();
  }

 protected:
  void multiply(ConstMatrixView X, MatrixView<float> Y,
                ThreadPool& pool) const override {
    if (rounds_for_speed()) {
      multiply_panels_rounded(panels_, X, Y, pool, isa());
    } else {
      multiply_panels(panels_, X, Y, pool, isa());
    }
    add_columns(X, outliers(), outlier_rows_.view(), Y, pool);
  }
  void multiply_int(ConstMatrixView X, const IntActivations& codes,
                    MatrixView<float> Y, ThreadPool& pool) const override {
    multiply_panels_int(panels_, codes, code_sums_, Y, pool, isa());
    const auto& columns = codes.exact_columns;
    if (columns.empty()) return;
    MatrixF rows = decode_columns(panels_, columns, place_of_, pool);
    for (std::size_t k = 0; k < outliers().size(); ++k) {
      const auto at =
          std::lower_bound(columns.begin(), columns.end(), outliers()[k]);
      const auto c = static_cast<std::size_t>(at - columns.begin());
      std::copy_n(outlier_rows_.row(k).data(), out(), rows.row(c).data());
    }
    add_columns(X, columns, rows.view(), Y, pool);
  }

 private:
  PanelWeight panels_;
  MatrixF outlier_rows_;                   // [outliers, out]
  std::vector<std::int32_t> code_sums_;    // block_code_sums
  std::vector<std::uint32_t> place_of_{};  // [in] inverse of gather, or empty
};

}  // namespace

std::unique_ptr<LinearKernel> make_linear_kernel(const LinearWeights& linear,
                                                 Isa isa,
                                                 InputPrecision inputs) {
  if (isa == Isa::kScalar) {
    check_frame(frame_of(linear));
    return std::make_unique<ReferenceLinear>(linear);
  }
  if (auto laid_out = lay_out(linear)) {
    return make_linear_kernel(std::move(*laid_out), isa, inputs);
  }
  return std::make_unique<DecodingLinear>(linear, isa);
}

std::unique_ptr<LinearKernel> make_linear_kernel(LaidOutLinear linear, Isa isa,
                                                 InputPrecision inputs) {
  if (auto* const sparse = std::get_if<SparsePanels>(&linear.weight)) {
    return std::make_unique<SparseLinear>(std::move(linear.frame),
                                          std::move(*sparse), isa);
  }
  return std::make_unique<PanelLinear>(std::move(linear), isa, inputs);
}

std::unique_ptr<LinearKernel> make_viewing_kernel(ConstMatrixView W,
                                                  const LinearWeights& around,
                                                  Isa isa) {
  return std::make_unique<ViewingLinear>(W, around, isa);
}

}  // namespace llmpress
