#include "compress/kernels/laid_out_linear.h"

#include <utility>

#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/hadamard.h"
#include "compress/kernels/panel_product.h"
#include "compress/kernels/sparse_product.h"

namespace llmpress {
namespace {

using Kind = ActivationQuant::Kind;

// [columns, out]
MatrixF decode_outliers(const Int8Weight& w) {
  const std::size_t columns = w.outlier_columns.size();
  MatrixF rows(columns, w.out);
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t c = 0; c < columns; ++c) {
      rows(c, o) = f16_to_float(w.outlier_values[o * columns + c]);
    }
  }
  return rows;
}

}  // namespace

bool LinearFrame::multiplies_integers() const {
  return input.kind == Kind::kInt &&
         input.range != ActivationQuant::Range::kGroup && integer_codes;
}

LinearFrame frame_of(const LinearWeights& linear) {
  LinearFrame frame{.out = rows_of(linear.weight),
                    .in = cols_of(linear.weight),
                    .weight_name = describe(linear.weight),
                    .bias = linear.bias,
                    .input = linear.input,
                    .input_hadamard = linear.input_hadamard,
                    .integer_codes = has_integer_codes(linear.weight)};
  if (const auto* const int8 = std::get_if<Int8Weight>(&linear.weight)) {
    frame.outlier_columns = int8->outlier_columns;
  }
  return frame;
}

void check_frame(const LinearFrame& frame) {
  const auto refuse = [&](const std::string& what) {
    fail(ErrorCode::kInvalidArgument, "linear kernel for {}: {}",
         frame.weight_name, what);
  };
  if (!frame.bias.empty() && frame.bias.size() != frame.out) {
    refuse(
        formatted("bias of {} for {} outputs", frame.bias.size(), frame.out));
  }
  if (frame.input_hadamard != 0 &&
      (frame.in % frame.input_hadamard != 0 ||
       !hadamard_size_supported(frame.input_hadamard))) {
    refuse(formatted("no Hadamard transform of {} of {} inputs",
                     frame.input_hadamard, frame.in));
  }
  const ActivationQuant& q = frame.input;
  if (q.kind == Kind::kInt && q.bits != 4 && q.bits != 8) {
    refuse(formatted("activations of {} bits, wanted 4 or 8", q.bits));
  }
  if (q.kind != Kind::kNone && q.range == ActivationQuant::Range::kGroup &&
      q.group_size == 0) {
    refuse("activations in groups of 0");
  }
  if (q.kind != Kind::kNone && q.range == ActivationQuant::Range::kStatic) {
    if (!(q.static_scale > 0)) refuse("static activation scale is not above 0");
    if (q.static_zero < -128 || q.static_zero > 127) {
      refuse(formatted("static activation zero {} is not in -128..127",
                       q.static_zero));
    }
  }
}

std::optional<LaidOutLinear> lay_out(const LinearWeights& linear) {
  LaidOutLinear laid_out{.frame = frame_of(linear)};
  check_frame(laid_out.frame);
  if (const auto* const sparse = std::get_if<SparseWeight>(&linear.weight)) {
    auto panels = make_sparse_panels(*sparse);
    if (!panels) return std::nullopt;
    laid_out.weight = std::move(*panels);
    return laid_out;
  }
  auto panels = make_panels(linear.weight);
  if (!panels) return std::nullopt;
  const auto* const int8 = std::get_if<Int8Weight>(&linear.weight);
  if (int8 != nullptr && !int8->outlier_columns.empty()) {
    laid_out.outlier_rows = decode_outliers(*int8);
  }
  if (laid_out.frame.multiplies_integers() && !linear.input.symmetric) {
    laid_out.code_sums = block_code_sums(*panels);
  }
  laid_out.weight = std::move(*panels);
  return laid_out;
}

}  // namespace llmpress
