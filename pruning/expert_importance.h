// How much an expert of a mixture matters, from the calibration tokens that are
// routed to it. With g_e(x) the weight that the router gives expert e for token
// x (after whatever normalizes and scales the weights of the chosen experts)
// and f_e(x) what the expert gives:
//
//   mass_e = sum over the tokens x routed to e of g_e(x)
//   REAP_e = mean over the tokens x routed to e of g_e(x) |f_e(x)|_2
//
// REAP ("router-weighted expert activation pruning", arXiv:2510.13999)
// is what the tokens that an expert has would miss without it; the mass also
// counts how many tokens those are. An expert without tokens has 0 of both.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/matrix.h"

namespace llmpress {

class ExpertImportances {
 public:
  explicit ExpertImportances(std::size_t experts)
      : mass_(experts), contribution_(experts), tokens_(experts) {}

  // Tokens routed to `expert`: g [tokens] and what the expert adds to the
  // mixture's output for them but for the factor, f [tokens, width]. `weighed`:
  // f holds the factor already, as where the weight is on what goes into the
  // expert.
  void add(std::size_t expert, std::span<const float> g, ConstMatrixView f,
           bool weighed = false);

  const std::vector<double>& mass() const { return mass_; }  // [experts]
  std::vector<double> reap() const;                          // [experts]
  // Of all mass; [experts].
  std::vector<double> mass_shares() const;

 private:
  std::vector<double> mass_, contribution_;
  std::vector<std::size_t> tokens_;
};

// The `count` most important of the experts in ascending order, as many of each
// of `groups` groups of neighbours. `groups` divides both. Throws as
// keep_most_important().
std::vector<std::size_t> keep_most_important_of_groups(
    std::span<const double> importance, std::size_t count, std::size_t groups);

}  // namespace llmpress
