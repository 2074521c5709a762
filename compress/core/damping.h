// Damping of a second moment H [n, n] before it is factored, shared by every
// method that inverts one (GPTQ, SparseGPT, healing).
//
//   H <- H + fraction * mean(diag H) * I
//
// What happens when the damped H still cannot be factored is the recipe's
// choice, and never silent: the fraction that was used is returned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"
#include "compress/core/setting.h"

namespace llmpress {

// What to do when the Hessian cannot be factored.
enum class DampingPolicy { kRaise, kFail };
inline constexpr Named<DampingPolicy> kDampingPolicyWords[] = {
    {"raise", DampingPolicy::kRaise}, {"fail", DampingPolicy::kFail}};

struct DampingConfig {
  double fraction = 0.01;  // of mean(diag H)
  DampingPolicy policy = DampingPolicy::kRaise;
  double increment = 0.01;  // kRaise: added until `bound`
  double bound = 1.0;

  bool operator==(const DampingConfig&) const = default;
};

// Throws Error(kInvalidArgument) unless 0 <= fraction <= bound, all finite, and
// increment > 0.
void check(const DampingConfig& config);

struct Damped {
  double fraction = 0;     // that sufficed
  double damping = 0;      // that times mean(diag H)
  std::size_t raises = 0;  // attempts that failed before it

  // One line for a report if the damping was raised.
  std::vector<std::string> notes() const;
};

// Calls attempt(damping) until it succeeds, with the fraction raised as
// `config` says. Throws Error(kNumeric, "<name>: ...") where it says no more.
Damped with_damping(const DampingConfig& config, double mean_diagonal,
                    std::string_view name,
                    const std::function<bool(double damping)>& attempt);

struct DampedInverse {
  MatrixF U{};  // [n, n] upper triangular, (H + damping I)^-1 = U^T U
  double damping_fraction = 0;  // that sufficed
  double damping = 0;           // that times mean(diag H)
  std::size_t raises = 0;       // factorizations that failed before it
  // Channels whose diagonal is 0: their H_ii was set to 1 before the mean was
  // taken, as GPTQ's code does. Weights on them do not matter and may be 0.
  std::vector<std::size_t> dead{};

  // One line for a report if the damping was raised or a channel is dead.
  std::vector<std::string> notes() const;
};

// Inverts H = scale * S [n, n] (symmetric, only the lower triangle counts) in
// place of a copy: S itself is not changed. Costs n^3 / 1.5 multiply-adds for
// each attempt and one [n, n]. Throws Error(kNumeric, "<name>: ...") if S is
// not finite or cannot be factored under the policy.
// With `order` [n], rows and columns of H are those of S in this order. Several
// ranks share the work, as inverse_cholesky_upper() says.
DampedInverse damped_inverse_cholesky(ConstMatrixView S, float scale,
                                      const DampingConfig& config,
                                      ThreadPool& pool, std::string_view name,
                                      std::span<const std::uint32_t> order = {},
                                      const Ranks& ranks = {});

// The inverse that Linears which read one input share: theirs is one second
// moment. Holds the last one that was made.
class SharedInverse {
 public:
  // Made by all of `ranks` together, if there are several: then each of them
  // makes the same calls.
  explicit SharedInverse(Ranks ranks = {}) : ranks_(std::move(ranks)) {}

  const Ranks& ranks() const { return ranks_; }

  // damped_inverse_cholesky() of these, or what it returned before for the same
  // `scale`, `config` and `order`; S must be the same in every call.
  const DampedInverse& get(ConstMatrixView S, float scale,
                           const DampingConfig& config, ThreadPool& pool,
                           std::string_view name,
                           std::span<const std::uint32_t> order = {});

 private:
  Ranks ranks_;
  float scale_ = 0;
  DampingConfig config_{};
  std::vector<std::uint32_t> order_{};
  std::optional<DampedInverse> inverse_{};
};

}  // namespace llmpress
