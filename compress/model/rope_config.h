#pragma once

#include <cstddef>
#include <vector>

namespace llmpress {

// Rotary embedding (arXiv:2104.09864); the formulas are in rope_positions.h.
enum class RopeScaling {
  kNone,
  kLinear,
  kLlama3,
  kYarn,
  kLongRope,
  kProportional
};
struct RopeConfig {
  std::size_t dim = 0;  // coordinates of a head that turn
  double theta = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  double attention_factor = 1;             // yarn, longrope: cos, sin times it
  bool truncate = true;                    // yarn: whole dimensions as bounds
  std::size_t original_max_positions = 0;  // llama3, yarn, longrope
  // longrope: each frequency's divisor up to and beyond the original context.
  std::vector<double> short_factor{}, long_factor{};  // [dim / 2]
  // proportional: pairs that turn; the others stay (Gemma 4).
  std::size_t turning_pairs = 0;

  bool operator==(const RopeConfig&) const = default;
};

}  // namespace llmpress
