#include "formats/linears/dense_linear.h"

#include <algorithm>
#include <cmath>

#include "compress/core/formatted.h"
#include "compress/core/magnitude.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/compressed_tensors.h"

namespace llmpress {

bool is_dense_linear(const StoredLinear& linear) {
  const TensorInfo* const info = linear.find(".weight");
  if (info == nullptr || info->shape.size() != 2) return false;
  return is_plain_float(info->dtype);
}

namespace {

void check_finite_row(std::span<const float> row, std::size_t index,
                      const std::string& where) {
  if (all_finite(row)) return;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (!std::isfinite(row[i])) {
      fail(ErrorCode::kInvalidInput, "{}: value [{}, {}] is {:g}, not finite",
           where, index, i, row[i]);
    }
  }
}

}  // namespace

void check_finite(DType dtype, std::span<const std::byte> values,
                  std::size_t columns, const std::string& where) {
  const std::size_t row_bytes = bytes_of(dtype, columns);
  if (row_bytes == 0) return;
  std::vector<float> row(columns);
  for (std::size_t o = 0; o < values.size() / row_bytes; ++o) {
    decode_floats(dtype, values.subspan(o * row_bytes, row_bytes), row);
    check_finite_row(row, o, where);
  }
}

RowSource dense_rows(const TensorReader& reader, const TensorInfo& matrix) {
  const std::size_t row_bytes = bytes_of(matrix.dtype, matrix.shape[1]);
  return {.rows = matrix.shape[0],
          .cols = matrix.shape[1],
          .read = [stored = reader.read(matrix), dtype = matrix.dtype,
                   row_bytes, where = subject_of(matrix)](
                      std::size_t first, MatrixView<float> to) {
            for (std::size_t r = 0; r < to.rows(); ++r) {
              decode_floats(
                  dtype,
                  stored.bytes.subspan((first + r) * row_bytes, row_bytes),
                  to.row(r));
              check_finite_row(to.row(r), first + r, where);
            }
          }};
}

PackedWeight read_dense_linear(const StoredLinear& linear) {
  const TensorInfo& info = linear.require(".weight");
  const TensorBytes stored = linear.reader.read(info);
  DenseWeight weight{.out = info.shape[0], .in = info.shape[1]};
  if (info.dtype == DType::kF64) {
    std::vector<float> values(weight.out * weight.in);
    decode_floats(info.dtype, stored.bytes, values);
    weight.data.resize(values.size() * sizeof(float));
    encode_floats(DType::kF32, values, weight.data);
  } else {
    weight.dtype = info.dtype;
    weight.data.assign(stored.bytes.begin(), stored.bytes.end());
  }
  return weight;
}

namespace {

// Methods whose configuration says how packed Linears are packed, not which
// Linears are: what is stored as numbers is meant so.
bool names_no_dense_linears(std::string_view method) {
  return method == "fp8" || method == "gptq" || method == "awq" ||
         method == "auto-round" || method == "intel/auto-round" ||
         method == "mlx" || method == "torchao";
}

}  // namespace

ActivationQuant dense_activations(const StoredLinear& linear) {
  if (names_no_dense_linears(linear.method)) return {};
  const bool packed = linear.scheme.weights &&
                      linear.scheme.format != "dense" &&
                      linear.find(".weight_scale") == nullptr;
  if (packed) {
    fail(ErrorCode::kInvalidInput,
         "{}: is stored as plain numbers, but quantization_config has '{}' "
         "weights for it; list it in 'ignore' if it was left as it is",
         subject_of(linear.require(".weight")), linear.scheme.format);
  }
  return read_activations(linear);
}

}  // namespace llmpress
