// Scales between a norm and the Linears behind it that learn (the equivalent
// transformation of OmniQuant, arXiv:2308.13137, Eq. 3, without shifts):
//
//   W' = W diag(t),   gain' = gain / t,   bias' = bias / t,   t = exp(tau)
//
// which leaves the function as it is until W' is rounded. With D of each Linear
// dL/dW' and d that of gain' and bias':
//
//   dL/dtau_i = sum over Linears and o of D[o, i] W'[o, i]
//               - d_gain_i gain'_i - d_bias_i bias'_i
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/optimizers/adamw.h"
#include "compress/core/parallel.h"
#include "compress/model/norm_weights.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

class NormTransformation {
 public:
  // `scaled` begin as the weights [out, in] of the Linears behind `norm`, and
  // are W' from then on. They must outlive this.
  NormTransformation(NormWeights norm, std::vector<MatrixF*> scaled);

  // A step of AdamW; changes W' in place.
  void step(std::span<const ConstMatrixView> D, const NormGradients& d,
            std::size_t iteration, float rate, ThreadPool& pool);
  NormWeights norm() const;                                  // gain', bias'
  std::span<const float> scales() const { return scales_; }  // t [in]

 private:
  std::vector<float> gradient(std::span<const ConstMatrixView> D,
                              const NormGradients& d, ThreadPool& pool) const;

  NormWeights norm_;
  std::vector<MatrixF> weights_;
  std::vector<MatrixF*> scaled_;
  std::vector<float> logarithms_, scales_;
  AdamWState state_{};
};

}  // namespace llmpress
