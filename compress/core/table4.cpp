#include "compress/core/table4.h"

#include <algorithm>
#include <array>

namespace llmpress {
namespace {

constexpr std::array<float, 16> kNf4 = {-1.0f,
                                        -0.6961928009986877f,
                                        -0.5250730514526367f,
                                        -0.39491748809814453f,
                                        -0.28444138169288635f,
                                        -0.18477343022823334f,
                                        -0.09105003625154495f,
                                        0.0f,
                                        0.07958029955625534f,
                                        0.16093020141124725f,
                                        0.24611230194568634f,
                                        0.33791524171829224f,
                                        0.44070982933044434f,
                                        0.5626170039176941f,
                                        0.7229568362236023f,
                                        1.0f};

// Twelfths, by the low three bits of the code.
constexpr std::array<float, 16> kFp4 = [] {
  constexpr std::array<float, 8> kTwelfths = {0, 0.0625f, 8, 12, 4, 6, 2, 3};
  std::array<float, 16> table{};
  for (std::size_t c = 0; c < 8; ++c) {
    table[c] = kTwelfths[c] / 12.0f;
    table[c + 8] = -table[c];
  }
  return table;
}();

// In float throughout, as the map is computed where it comes from; only the
// powers of ten are doubles there.
std::array<float, 256> make_nested_map() {
  std::array<float, 256> map{};  // one entry stays 0
  std::size_t n = 0;
  double power = 1e-6;
  for (std::size_t i = 0; i < 7; ++i, power *= 10) {
    const std::size_t intervals = std::size_t{1} << i;
    const float step = 0.9f / static_cast<float>(intervals);
    // Both halves count from their own end, so that the last boundary is 1.
    const auto boundary = [&](std::size_t k) {
      return k < (intervals + 1) / 2
                 ? 0.1f + step * static_cast<float>(k)
                 : 1.0f - step * static_cast<float>(intervals - k);
    };
    for (std::size_t k = 0; k < intervals; ++k) {
      const float mean = (boundary(k) + boundary(k + 1)) / 2.0f;
      map[n++] = static_cast<float>(power) * mean;
      map[n++] = -static_cast<float>(power) * mean;
    }
  }
  map[n] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}

}  // namespace

std::span<const float> table4_values(Table4Kind kind) {
  return kind == Table4Kind::kNf4 ? kNf4 : kFp4;
}

std::span<const float> nested_absmax_map() {
  static const std::array<float, 256> map = make_nested_map();
  return map;
}

}  // namespace llmpress
