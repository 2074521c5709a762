// A LoRA adapter from two weights: the best approximation of their difference
// of rank r in the Frobenius norm, by truncated singular value decomposition
// (Eckart and Young 1936). With W' - W = U diag(s) V^T,
//   B = U_r diag(sqrt(s_r)),   A = diag(sqrt(s_r)) V_r^T,   scaling = 1
// and the captured energy is sum_{k<r} s_k^2 / |W' - W|_F^2.
//
// Matrices whose smaller side is above `exact_side` go through the randomized
// decomposition of randomized_svd.h, seeded, with a rank that is doubled until
// the wanted energy is in; the captured energy is that of the factors found,
// never an estimate.
//
// Cost: exact, one thin SVD, O(out * in * min(out, in)) in double; randomized,
// O(out * in * r).
#pragma once

#include <cstddef>
#include <cstdint>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct ExtractConfig {
  std::size_t rank = 16;  // at most; 0: as many as the energy takes
  // Stops at the smallest rank that captures this fraction of the energy, in
  // (0, 1]; 1: every singular value that counts, up to `rank`.
  double energy = 1;
  std::size_t exact_side = 320;  // above: randomized
  std::uint64_t seed = 0;

  bool operator==(const ExtractConfig&) const = default;
};

struct ExtractedLora {
  MatrixF A{};  // [r, in]; r = 0 if the weights are equal
  MatrixF B{};  // [out, r]
  double captured_energy = 1;
  double change_norm = 0;  // |W' - W|_F
};

// Throws Error(kInvalidArgument) unless 0 < energy <= 1, and below 1 if rank is
// 0.
void check(const ExtractConfig& config);

// Throws Error(kInvalidArgument) if the shapes differ, kNumeric if a weight is
// not finite.
ExtractedLora extract_lora(ConstMatrixView base, ConstMatrixView tuned,
                           const ExtractConfig& config, ThreadPool& pool);

}  // namespace llmpress
