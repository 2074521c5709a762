// A LoRA adapter from two weights: the best approximation of their difference
// of rank r in the Frobenius norm, by truncated singular value decomposition
// (Eckart and Young 1936). With W' - W = U diag(s) V^T,
//   B = U_r diag(sqrt(s_r)),   A = diag(sqrt(s_r)) V_r^T,   scaling = 1
// and the captured energy is sum_{k<r} s_k^2 / |W' - W|_F^2.
//
// Cost: one thin SVD, O(out * in * min(out, in)), and three [out, in].
#pragma once

#include <cstddef>

#include "compress/core/matrix.h"

namespace llmpress {

struct ExtractConfig {
  std::size_t rank = 16;  // at most
  // Stops at the smallest rank that captures this fraction of the energy, in
  // (0, 1]; 1: every singular value that counts, up to `rank`.
  double energy = 1;

  bool operator==(const ExtractConfig&) const = default;
};

struct ExtractedLora {
  MatrixF A{};  // [r, in]; r = 0 if the weights are equal
  MatrixF B{};  // [out, r]
  double captured_energy = 1;
  double change_norm = 0;  // |W' - W|_F
};

// Throws Error(kInvalidArgument) unless rank >= 1 and 0 < energy <= 1.
void check(const ExtractConfig& config);

// Throws Error(kInvalidArgument) if the shapes differ, kNumeric if a weight is
// not finite.
ExtractedLora extract_lora(ConstMatrixView base, ConstMatrixView tuned,
                           const ExtractConfig& config);

}  // namespace llmpress
