#include "compress/core/rng.h"

#include <cassert>
#include <cmath>
#include <numbers>

namespace llmpress {

std::uint64_t Rng::next() {
  state_ += 0x9e3779b97f4a7c15u;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::uint64_t Rng::below(std::uint64_t bound) {
  assert(bound > 0);
  // The first 2^64 mod bound outputs would make small results likelier.
  const std::uint64_t surplus = (0 - bound) % bound;
  std::uint64_t r = next();
  while (r < surplus) r = next();
  return r % bound;
}

double Rng::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

double Rng::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  const double angle = 2.0 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

}  // namespace llmpress
