// The input of the golden vectors: x[i] = ((37 i + 11) mod 101 - 50) / 32,
// exact in every float format that is used here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace llmpress::testing_support {

inline std::vector<float> golden_input(std::size_t count) {
  std::vector<float> x;
  for (std::size_t i = 0; i < count; ++i) {
    x.push_back((static_cast<float>((37 * i + 11) % 101) - 50.0f) / 32.0f);
  }
  return x;
}

inline std::string hex(const std::vector<std::uint8_t>& bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t b : bytes) {
    text += kDigits[b >> 4];
    text += kDigits[b & 15];
  }
  return text;
}

}  // namespace llmpress::testing_support
