// Removes experts of a mixture by the error of its output. With
// y_S(x) = sum over the experts e in S that x is routed to of g_e(x; S) f_e(x)
// the mixture of the experts S, where the router chooses and weighs among S
// alone (a token whose expert went goes to the next one that is left), and
// `all` the experts at the start:
//
//   error(S) = E|y_all - y_S|^2 / E|y_all|^2
//
// Experts go one by one, each time the one without which error() is smallest
// (backward elimination): what an expert is worth depends on who is left to
// stand in for it, which ranking each by itself does not see. Half of two
// experts that give the same are worth nothing, both are worth much. Where more
// than kRemovalRounds would have to go, several go at a time.
//
// Since error() is a quadratic form in the weights, the experts' outputs are
// needed only through their products f_a(x) . f_b(x).
//
// Cost: rounds * experts routings of all tokens, tokens * experts^2 products.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

constexpr std::size_t kRemovalRounds = 64;

// A mixture on some tokens.
struct MixtureOutputs {
  std::size_t experts = 0;
  // [tokens, experts * experts]: f_a(x) . f_b(x) for every expert, chosen or
  // not.
  MatrixF products{};
  // g(x; S) [tokens, experts], 0 for experts that a token is not routed to.
  // `stays` [experts] says which are in S.
  std::function<MatrixF(const std::vector<bool>& stays)> route{};
};

class MixtureError {
 public:
  // `outputs` and `pool` must outlive this.
  MixtureError(const MixtureOutputs& outputs, ThreadPool& pool);

  // error(S), of which `stays` [experts] says what is in it. Throws
  // Error(kNumeric) if it is not finite.
  double of(const std::vector<bool>& stays) const;

 private:
  // Sum over tokens of |sum_e weights(t, e) f_e(x_t)|^2.
  double energy(const MatrixF& weights) const;

  const MixtureOutputs& outputs_;
  ThreadPool& pool_;
  MatrixF g_all_;
  double energy_all_ = 0;
};

struct RemovedUnit {
  std::size_t unit = 0;
  double rise = 0;  // of error() by its removal from those left before it
};

// In the order in which they go, until `kept` are left, as many of each of
// `groups` groups of neighbours. `groups` divides both numbers.
std::vector<RemovedUnit> remove_by_output_error(const MixtureOutputs& outputs,
                                                std::size_t kept,
                                                std::size_t groups,
                                                ThreadPool& pool);

}  // namespace llmpress
