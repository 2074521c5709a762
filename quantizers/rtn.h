// Round to nearest: the weight on its grid, no calibration. It is also the
// rounding that the scaling methods (AWQ, SmoothQuant) try their scales with.
//   int      groups of int_grid.h; int8 for W8A8 (8 bits, a grid a row or one
//   in
//            all, integer inputs)
//   fp8      fp8.h            float    f32, f16 or bf16
//   nf4 fp4  table4.h         mxfp4 nvfp4  micro_fp4.h
//
// "imatrix" is the same with the range search on, each squared error weighted
// by the mean square of its input: the diagonal of the error that GPTQ
// minimizes (the importance matrix of llama.cpp; imatrix_mse of
// llm-compressor). Cost: memory bandwidth; with a searched range about 80
// passes.
#pragma once

#include <span>

#include "compress/core/matrix.h"
#include "quantizers/method.h"

namespace llmpress {

// W on the grid of config.weights. `importance` [in] or empty. Throws
// Error(kInvalidArgument) for a scheme that cannot be used.
PackedWeight round_to_nearest(ConstMatrixView W, const QuantizeConfig& config,
                              ThreadPool& pool,
                              std::span<const float> importance = {});

// Whether `config` asks for signed octets with integer inputs (W8A8).
bool wants_int8(const QuantizeConfig& config, std::size_t in);

// QuantizerMethod::rounds_rows_apart.
bool rounds_rows_apart(const QuantizeConfig& config, std::size_t in);

QuantizeResult quantize_rtn(const QuantizeRequest& request);

QuantizerMethod rtn_method();
QuantizerMethod imatrix_method();

}  // namespace llmpress
