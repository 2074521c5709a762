// y = W r(t(x)) + b with packed weights, for one row of x or many.
//
// Weight-only formats multiply float32 inputs by exactly dequantized weights
// (accumulated in float32); formats with an ActivationQuant round the input as
// it says and accumulate integers where both sides are integers and a token has
// one scale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/laid_out_linear.h"

namespace llmpress {

class LinearKernel {
 public:
  virtual ~LinearKernel() = default;
  // X [tokens, in] -> Y [tokens, out], overwritten. The bits of a row of Y do
  // not depend on the number of threads.
  virtual void run(ConstMatrixView X, MatrixView<float> Y,
                   ThreadPool& pool) const = 0;
  virtual std::size_t out() const = 0;
  virtual std::size_t in() const = 0;
  virtual std::size_t bytes() const = 0;      // of the prepared weight
  virtual std::string_view name() const = 0;  // "int4-group/avx512-vnni"
  // Whether codes of activations are multiplied, not floats.
  virtual bool integer_activations() const { return false; }
};

// What a kernel may do to inputs that are stored as floats.
enum class InputPrecision {
  kExact,
  // Rounded to int8 by blocks of at most 128 inputs of a token, for speed,
  // wherever the weight is of whole numbers or a table and the kernel is not
  // the scalar one (rounded_kernels.h).
  kInt8,
};

// Lays the weight out for the instruction set. Throws Error(kUnsupported) for a
// combination that has no kernel (naming it).
std::unique_ptr<LinearKernel> make_linear_kernel(
    const LinearWeights& linear, Isa isa,
    InputPrecision inputs = InputPrecision::kExact);
// Of what is laid out already; `isa` is not kScalar.
std::unique_ptr<LinearKernel> make_linear_kernel(LaidOutLinear linear, Isa isa,
                                                 InputPrecision inputs);

// A Linear that runs W [out, in] where it lies, with the bias and what is done to
// inputs of `around`: for weights that are tried once or twice, which are not
// worth being laid out. W must outlive it.
std::unique_ptr<LinearKernel> make_viewing_kernel(ConstMatrixView W,
                                                  const LinearWeights& around,
                                                  Isa isa);

// Rounds rows of X as `quant` says, in place: what the kernels do to their
// input, for calibration and for tests, on the grids of activation_grid.h: one
// for each token, each group of its inputs, for the whole call or as calibrated. Columns with any |x| >=
// outlier_threshold in the call, and `exact_columns` (ascending; the outlier
// columns of an Int8Weight), are left as they are and count neither for max nor
// for min. Throws Error(kNumeric) if a value is not finite.
void quantize_activations_in_place(
    const ActivationQuant& quant, MatrixView<float> X,
    std::span<const std::uint32_t> exact_columns = {});

}  // namespace llmpress
