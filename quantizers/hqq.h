// HQQ: Half-Quadratic Quantization, Badri and Shaji 2023 (mobiusml.github.io/
// hqq_blog). No calibration: the zero of each group, a real number, is found by
// minimizing the sparsity-promoting |W - W'|_p^p, p < 1, with half-quadratic
// splitting. With s fixed by the range, repeat
//
//   q = clamp(round(W / s + z)),  W' = s (q - z)
//   E = shrink(W - W'),  shrink(x) = sign(x) max(0, |x| - |x|^(p-1) / beta)
//   z = mean(q - (W - E) / s)
//
// and keep the z of the smallest mean |W - W'|. Scales and zeros are then
// rounded to scale_dtype and the codes fitted to them. Differs from the
// authors' code: it stops for each group apart, not for the tensor. Cost:
// `iterations` passes over the weight.
#pragma once

#include "quantizers/method.h"

namespace llmpress {

GroupedIntWeight quantize_hqq_weight(ConstMatrixView W,
                                     const WeightScheme& scheme,
                                     const HqqConfig& hqq, ThreadPool& pool);

QuantizerMethod hqq_method();

}  // namespace llmpress
