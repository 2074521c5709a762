// The leading part of a singular value decomposition by random projection
// (Halko, Martinsson, Tropp 2011, arXiv:0909.4061, Algorithms 4.4 and 5.1):
//
//   Q = orth((A A^T)^q A W),  W [n, l] Gaussian,  l = rank + oversampling,
//   Q^T A = U' diag(s) V^T,   U = Q U'
//
// with an orthonormal basis taken after every product, so that small singular
// values are not lost. A matrix of rank at most l comes out exactly; otherwise
// the expected error in the spectral norm is within
//   (1 + (sqrt(k / (p - 1)) + e sqrt(k + p) / p) sqrt(min(m, n) -
//   k))^(1/(2q+1))
// of s_{k+1} for rank k and oversampling p (Corollary 10.10): a few percent.
//
// Cost: 2 (q + 1) products of m n l multiply-adds and 2 (q + 1) bases of
// 2 max(m, n) l^2. The result depends on the seed, not on the threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compress/core/linalg.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct RandomizedSvdConfig {
  std::size_t rank = 16;
  std::size_t oversampling = 10;
  std::size_t power_iterations = 2;  // q
  std::uint64_t seed = 0;
};

// U [m, l], s [l], V [n, l] for A [m, n], l = min(rank + oversampling, m, n):
// the values past `rank` are rougher. Throws Error(kInvalidArgument) for rank
// 0, Error(kNumeric) if A is not finite.
Svd randomized_svd(ConstMatrixView A, const RandomizedSvdConfig& config,
                   ThreadPool& pool);

}  // namespace llmpress
