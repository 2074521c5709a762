// Several fine-tunes of one weight made into one change, under PEFT's names
// (add_weighted_adapter) and with its meanings. An adapter t has the change
// D_t = s_t B_t A_t, scaling s_t, and a weight w_t.
//
//   cat    sum of w_t D_t, exactly
//   svd    the same, then its best approximation of rank `svd_rank`
//
// The other methods combine tensors T_t with weights v_t into one:
//
//   linear           sum of v_t T_t
//   magnitude_prune  each T_t keeps its `density` largest elements; then linear
//   dare_linear      (arXiv:2311.03099, Eq. 3) each element of T_t is dropped
//                    with probability 1 - density, the others are divided by
//                    density; then linear
//   ties             (arXiv:2306.01708, Algorithm 1) each T_t keeps its
//                    `density` largest elements; at each place a sign is
//                    elected, that of sum T_t or the one most of them have
//                    (plus for a tie); then the mean of v_t T_t over those that
//                    have it
//   dare_ties        drops as dare_linear does, then elects as ties does
//
// By these names the T_t are the factors, A_t with sign(w_t s_t) sqrt|w_t s_t|
// and B_t with sqrt|w_t s_t|, so that the result has the products of one
// adapter's A with another's B in it: cheap, of equal rank, and a rough
// approximation. With "_svd" behind the name they are the changes D_t with w_t,
// and the result is cut to rank `svd_rank`.
//
// Which elements DARE drops depends on seed, tensor name and position of the
// adapter alone. Cost: linear in the elements, and a decomposition for svd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "lora/lora_delta.h"

namespace llmpress {

enum class CombineMethod {
  kCat,
  kLinear,
  kTies,
  kDareLinear,
  kDareTies,
  kMagnitudePrune,
  kSvd,
  kTiesSvd,
  kDareLinearSvd,
  kDareTiesSvd,
  kMagnitudePruneSvd,
};

// How ties elects signs: by the sum of the tensors, or by their number.
enum class MajoritySign { kTotal, kFrequency };

struct CombineConfig {
  CombineMethod method = CombineMethod::kCat;
  double density = 1;  // kept by trimming and dropping, in (0, 1]
  MajoritySign majority_sign = MajoritySign::kTotal;
  std::size_t svd_rank = 0;  // 0: the whole of the combined change
  std::uint64_t seed = 0;

  bool operator==(const CombineConfig&) const = default;
};

// "cat", "linear", "ties_svd", ...
std::string_view name_of(CombineMethod method);
std::optional<CombineMethod> parse_combine_method(std::string_view name);
std::vector<std::string> combine_method_names();

// Whether the method takes factors, or else whole changes.
bool combines_factors(CombineMethod method);

// Throws Error(kInvalidArgument) unless 0 < density <= 1.
void check(const CombineConfig& config);

// Keeps the floor(density * size) elements of largest magnitude, of equal ones
// the earlier, and zeroes the others.
void trim_in_place(double density, MatrixView<float> D);

// DARE of one tensor.
void drop_in_place(double density, std::uint64_t seed, MatrixView<float> D);

// `tensors` [rows, cols] each, consumed, combined as the method says of its
// T_t; one weight for each. Throws Error(kInvalidArgument) for other shapes or
// numbers, kNumeric if the result is not finite.
MatrixF combine(std::vector<MatrixF> tensors, std::span<const double> weights,
                const CombineConfig& config, std::string_view tensor_name,
                ThreadPool& pool);

// The adapter that PEFT makes of several: a change of scaling 1. Throws
// Error(kInvalidArgument) for ranks that differ, kUnsupported for DoRA, whose
// change is not its factors' alone.
LoraDelta combine_factors(std::span<const LoraDelta> deltas,
                          std::span<const double> weights,
                          const CombineConfig& config,
                          std::string_view tensor_name, ThreadPool& pool);

// `changes` [out, in] each, consumed, combined and cut to svd_rank.
MatrixF combine_changes(std::vector<MatrixF> changes,
                        std::span<const double> weights,
                        const CombineConfig& config,
                        std::string_view tensor_name, ThreadPool& pool);

}  // namespace llmpress
