// Overflow-checked arithmetic for sizes read from files and configurations.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "compress/core/error.h"

namespace llmpress {

// a * b and a + b; throw Error(kCorruptFile, "<what>: size overflows").
inline std::size_t checked_mul(std::size_t a, std::size_t b,
                               const std::string& what) {
  std::size_t r = 0;
  if (__builtin_mul_overflow(a, b, &r)) {
    throw Error(ErrorCode::kCorruptFile, what + ": size overflows");
  }
  return r;
}

inline std::size_t checked_add(std::size_t a, std::size_t b,
                               const std::string& what) {
  std::size_t r = 0;
  if (__builtin_add_overflow(a, b, &r)) {
    throw Error(ErrorCode::kCorruptFile, what + ": size overflows");
  }
  return r;
}

// The product of `shape`; 1 for a 0-dimensional tensor.
inline std::size_t checked_elements(std::span<const std::size_t> shape,
                                    const std::string& what) {
  std::size_t n = 1;
  for (const std::size_t d : shape) n = checked_mul(n, d, what);
  return n;
}

inline constexpr std::size_t ceil_div(std::size_t a, std::size_t b) {
  return a / b + (a % b != 0);
}

}  // namespace llmpress
