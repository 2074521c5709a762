// Hadamard matrices whose order is no power of two (R. Paley 1933, "On
// orthogonal matrices"), from the quadratic character chi of a finite field
// GF(q), q = p^k:
//   I   q = 3 mod 4, order q + 1:    H = I + [0 1^T; -1 Q]
//   II  q = 1 mod 4, order 2(q + 1): C = [0 1^T; 1 Q] with every 0 replaced by
//       [1 -1; -1 -1] and every s = +-1 by s [1 1; 1 -1]
// where Q[a, b] = chi(a - b). H H^T = order * I, entries +-1.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace llmpress {

class PaleyMatrix {
 public:
  PaleyMatrix(std::vector<float> signs, std::size_t order)
      : signs_(std::move(signs)), order_(order) {}
  std::size_t order() const { return order_; }
  float operator()(std::size_t i, std::size_t j) const {
    return signs_[i * order_ + j];
  }
  std::span<const float> signs() const { return signs_; }  // [order, order]

 private:
  std::vector<float> signs_;  // [order, order], each 1 or -1
  std::size_t order_;
};

// Whether I or II gives this order (a multiple of 4, at most 4096: the matrix
// takes 4 order^2 bytes).
bool paley_order_exists(std::size_t order);

// Built at the first call for an order (order^2 steps), then shared.
std::shared_ptr<const PaleyMatrix> paley_matrix(std::size_t order);

}  // namespace llmpress
