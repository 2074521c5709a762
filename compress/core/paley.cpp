#include "compress/core/paley.h"

#include <cassert>
#include <map>
#include <mutex>
#include <utility>

namespace llmpress {
namespace {

constexpr std::size_t kLargestOrder = 4096;

// q = p^k with p prime; p = 0 if q is no power of an odd prime.
struct PrimePower {
  std::size_t p = 0, k = 0;
};

PrimePower prime_power(std::size_t q) {
  if (q < 3 || q % 2 == 0) return {};
  std::size_t p = 3;
  while (q % p != 0 && p * p <= q) p += 2;
  if (q % p != 0) return {q, 1};
  std::size_t k = 0;
  for (; q % p == 0; q /= p) ++k;
  return q == 1 ? PrimePower{p, k} : PrimePower{};
}

bool usable(std::size_t q, std::size_t residue) {
  return q % 4 == residue && prime_power(q).p != 0;
}

// GF(p^k): an element is the polynomial over GF(p) whose coefficients are the
// digits of its index in base p, multiplied modulo x^k - reduction(x).
class Field {
 public:
  explicit Field(std::size_t q) : q_(q) {
    const PrimePower power = prime_power(q);
    p_ = power.p;
    k_ = power.k;
    // In a field every element has an order that divides q - 1, and x generates
    // all of them for some choice of the modulus (a primitive polynomial).
    while (!generated_by_x()) ++reduction_;
  }

  // chi: 0 for 0, 1 for squares, -1 for others. Squares are the even powers of
  // a generator.
  std::vector<int> character() const {
    std::vector<int> chi(q_, -1);
    chi[0] = 0;
    std::size_t element = 1;
    for (std::size_t e = 0; e < q_ - 1; ++e, element = times_x(element)) {
      if (e % 2 == 0) chi[element] = 1;
    }
    return chi;
  }

  std::size_t subtract(std::size_t a, std::size_t b) const {
    std::size_t difference = 0, place = 1;
    for (std::size_t i = 0; i < k_; ++i, place *= p_, a /= p_, b /= p_) {
      difference += (a % p_ + p_ - b % p_) % p_ * place;
    }
    return difference;
  }

 private:
  // For k = 1 "x" is the number reduction_ itself: x^1 = reduction_.
  std::size_t times_x(std::size_t a) const {
    const std::size_t top_place = q_ / p_;
    const std::size_t top = a / top_place;  // coefficient of x^(k-1)
    std::size_t shifted = a % top_place * p_;
    std::size_t sum = 0, place = 1, r = reduction_;
    for (std::size_t i = 0; i < k_; ++i, place *= p_, r /= p_, shifted /= p_) {
      sum += (shifted % p_ + top * (r % p_)) % p_ * place;
    }
    return sum;
  }

  bool generated_by_x() const {
    std::size_t element = times_x(1), order = 1;
    while (element != 1 && element != 0 && order < q_) {
      element = times_x(element);
      ++order;
    }
    return element == 1 && order == q_ - 1;
  }

  std::size_t q_, p_ = 0, k_ = 0;
  std::size_t reduction_ = 1;
};

// [0 1^T; border 1 Q] of size q + 1.
std::vector<int> bordered_character(std::size_t q, int border) {
  const Field field(q);
  const std::vector<int> chi = field.character();
  const std::size_t n = q + 1;
  std::vector<int> C(n * n);
  for (std::size_t a = 0; a < q; ++a) {
    C[a + 1] = 1;
    C[(a + 1) * n] = border;
    for (std::size_t b = 0; b < q; ++b) {
      C[(a + 1) * n + b + 1] = chi[field.subtract(a, b)];
    }
  }
  return C;
}

std::vector<float> construct(std::size_t order) {
  std::vector<float> H(order * order);
  if (usable(order - 1, 3)) {
    const std::vector<int> C = bordered_character(order - 1, -1);
    for (std::size_t i = 0; i < H.size(); ++i) {
      H[i] = static_cast<float>(C[i] + (i % (order + 1) == 0 ? 1 : 0));
    }
    return H;
  }
  assert(usable(order / 2 - 1, 1));
  const std::size_t n = order / 2;
  const std::vector<int> C = bordered_character(n - 1, 1);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      const auto s = static_cast<float>(C[i * n + j]);
      float* block = H.data() + 2 * i * order + 2 * j;
      block[0] = s == 0 ? 1 : s;
      block[1] = s == 0 ? -1 : s;
      block[order] = s == 0 ? -1 : s;
      block[order + 1] = s == 0 ? -1 : -s;
    }
  }
  return H;
}

}  // namespace

bool paley_order_exists(std::size_t order) {
  if (order < 4 || order % 4 != 0 || order > kLargestOrder) return false;
  return usable(order - 1, 3) || usable(order / 2 - 1, 1);
}

std::shared_ptr<const PaleyMatrix> paley_matrix(std::size_t order) {
  assert(paley_order_exists(order));
  static std::mutex mutex;
  static std::map<std::size_t, std::shared_ptr<const PaleyMatrix>> built;
  const std::lock_guard lock(mutex);
  auto& matrix = built[order];
  if (!matrix) matrix = std::make_shared<PaleyMatrix>(construct(order), order);
  return matrix;
}

}  // namespace llmpress
