// A Linear stored as plain numbers: `<name>.weight` [out, in] of F32, F16,
// BF16, or F64, which is read as F32.
#pragma once

#include "formats/linears/linear_form.h"

namespace llmpress {

bool is_dense_linear(const StoredLinear& linear);
PackedWeight read_dense_linear(const StoredLinear& linear);
// The rows of a matrix of plain numbers where they lie; values that are not finite
// are refused as rows are read.
RowSource dense_rows(const TensorReader& reader, const TensorInfo& matrix);
// Of the scheme, but for the fp8 method, which leaves the inputs of a weight
// that is not in 8 bits alone (FP8Linear of transformers). Throws
// Error(kInvalidInput) if the scheme packs weights, so that this one should
// have been.
ActivationQuant dense_activations(const StoredLinear& linear);

// Throws Error(kInvalidInput) naming the first value, of rows of `columns`, that
// is not finite.
void check_finite(DType dtype, std::span<const std::byte> values,
                  std::size_t columns, const std::string& where);

}  // namespace llmpress
