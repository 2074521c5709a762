// What the checks of all packed types need: nothing that a reader may index out
// of bounds with gets past them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "compress/core/checked.h"
#include "compress/core/dtype.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"

namespace llmpress {

// Says what is wrong with the weight `name`.
class PackedChecker {
 public:
  explicit PackedChecker(std::string_view name) : name_(name) {}

  [[noreturn]] void refuse(const std::string& what) const {
    fail(ErrorCode::kCorruptFile, "{}: {}", name_, what);
  }

  // `what` is a string or a function that makes one: messages with numbers in
  // them are only built when they are needed.
  template <class What>
  void require(bool condition, const What& what) const {
    if (condition) return;
    if constexpr (std::is_invocable_v<What>) {
      refuse(what());
    } else {
      refuse(what);
    }
  }

  void size(std::string_view buffer, std::size_t found,
            std::size_t wanted) const {
    if (found == wanted) return;
    refuse(formatted("{} holds {} elements, wanted {}", buffer, found, wanted));
  }

  std::size_t mul(std::size_t a, std::size_t b) const {
    return checked_mul(a, b, name_);
  }

  // Rejects what cannot be a Linear, so that products of shapes are safe below.
  void shape(std::size_t out, std::size_t in) const {
    if (out == 0 || in == 0) {
      refuse(formatted("shape [{}, {}] has no elements", out, in));
    }
    // Room for the widest element.
    checked_mul(mul(out, in), 8, name_);
  }

  // Finite, and a value of the type that they are written in.
  void scales(std::string_view buffer, std::span<const float> values,
              DType dtype) const {
    if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
      refuse(formatted("scales of type {}, wanted F32, F16 or BF16",
                       facts(dtype).name));
    }
    std::array<float, 256> rounded{};
    for (std::size_t b = 0; b < values.size(); b += rounded.size()) {
      const auto chunk =
          values.subspan(b, std::min(rounded.size(), values.size() - b));
      std::copy(chunk.begin(), chunk.end(), rounded.begin());
      round_through(dtype, std::span(rounded).first(chunk.size()));
      for (std::size_t k = 0; k < chunk.size(); ++k) {
        if (std::isfinite(chunk[k]) && rounded[k] == chunk[k]) continue;
        refuse(formatted("{}[{}] is {:g}, wanted a finite {}", buffer, b + k,
                         chunk[k], facts(dtype).name));
      }
    }
  }

  void codes(std::string_view buffer, std::span<const std::uint8_t> values,
             int bits) const {
    for (std::size_t k = 0; k < values.size(); ++k) {
      if (values[k] >> bits == 0) continue;
      refuse(formatted("{}[{}] is {}, wanted less than 2^{}", buffer, k,
                       values[k], bits));
    }
  }

  // Of plain values.
  void plain_dtype(DType dtype) const {
    if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
      refuse(formatted("values of type {}, wanted F32, F16 or BF16",
                       facts(dtype).name));
    }
  }

  void group_size(std::size_t group_size, std::size_t in) const {
    if (group_size == 0 || group_size > in) {
      refuse(formatted("group_size {}, wanted 1..{}", group_size, in));
    }
  }

 private:
  std::string name_;
};

}  // namespace llmpress
