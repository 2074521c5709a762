// Several fine-tunes of one weight made into one change. With changes D_t and
// weights w_t of the adapters t:
//
//   linear  sum of w_t D_t
//   TIES    (arXiv:2306.01708, Algorithm 1) trim: keep the `density` largest
//           |D_t|; elect the sign of sum w_t D_t at each place, plus for a tie;
//           then the mean of w_t D_t over the adapters that have that sign
//           there. Equal weights are the paper's lambda.
//           Differs from the paper: each weight matrix is trimmed by itself, so
//           that one is in memory at a time.
//   DARE    (arXiv:2311.03099, Eq. 3) drop each element with probability p =
//           1 - density and divide the others by density; then linear or TIES
//           without its trim.
//
// Which elements DARE drops depends on seed, tensor name and position of the
// adapter alone. Cost: linear in the elements.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

enum class CombineMethod { kLinear, kTies, kDareLinear, kDareTies };

struct CombineConfig {
  CombineMethod method = CombineMethod::kLinear;
  double density = 1;  // kept by TIES's trim or DARE, in (0, 1]
  std::uint64_t seed = 0;

  bool operator==(const CombineConfig&) const = default;
};

// "linear", "ties", "dare_linear", "dare_ties".
std::string_view name_of(CombineMethod method);
std::optional<CombineMethod> parse_combine_method(std::string_view name);

// Throws Error(kInvalidArgument) unless 0 < density <= 1.
void check(const CombineConfig& config);

// Keeps the round(density * size) elements (at least one) of largest magnitude,
// of equal ones the earlier, and zeroes the others.
void trim_in_place(double density, MatrixView<float> D);

// DARE of one change.
void drop_in_place(double density, std::uint64_t seed, MatrixView<float> D);

// `changes` [out, in] each, consumed; one weight for each. Throws
// Error(kInvalidArgument) for other shapes or numbers, kNumeric if the result
// is not finite.
MatrixF combine(std::vector<MatrixF> changes, std::span<const double> weights,
                const CombineConfig& config, std::string_view tensor_name,
                ThreadPool& pool);

}  // namespace llmpress
