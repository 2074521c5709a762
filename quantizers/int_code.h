// The one expression that rounds a weight to an integer grid, as instructions
// that every target vectorizes and that give the same bits in all of them.
#pragma once

namespace llmpress {

inline float max_int_code(int bits) {
  return static_cast<float>((1 << bits) - 1);
}

// Half to even for |x| < 2^22.
inline float round_half_even(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: no bits behind the point
  return (x + kMagic) - kMagic;
}

inline float clamp_to(float x, float lo, float hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

// clamp(round(w / scale) + zero, 0, max_code)
inline float int_code(float w, float scale, float zero, float max_code) {
  constexpr float kOffGrid = 4096.0f;  // beyond every grid
  const float steps = clamp_to(w / scale, -kOffGrid, kOffGrid);
  return clamp_to(round_half_even(steps) + zero, 0.0f, max_code);
}

}  // namespace llmpress
