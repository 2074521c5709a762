// A small generator whose streams are the same on every platform and compiler
// (std::normal_distribution and std::shuffle are not).
#pragma once

#include <cstdint>

namespace llmpress {

// SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
// generators").
class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  // Uniform in [0, bound), bound > 0, without modulo bias.
  std::uint64_t below(std::uint64_t bound);
  double uniform();  // [0, 1)
  double normal();   // mean 0, variance 1 (Box-Muller)

 private:
  std::uint64_t state_;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace llmpress
