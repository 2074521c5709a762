// The dynamic 8-bit data type of block-wise optimizer states
// (arXiv:2110.02861, section 2.1 and Appendix F): 256 numbers in [-1, 1] or
// [0, 1] whose precision follows the size of what they hold.
//
// A code is a sign (signed only), a run of zeros that says the power of ten,
// 10^-6 to 10^0, a one, and a fraction of the bits that are left: with e left,
// the centres of 2^e equal parts of [0.1, 1] (2^(e + 1) unsigned, which has the
// sign's bit to spend). 0 and 1 complete the 256. Sorted, so that codes order as
// numbers do.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace llmpress {

class DynamicMap {
 public:
  explicit DynamicMap(bool with_sign);

  float value(std::uint8_t code) const { return values_[code]; }
  // Of the nearest value; x in [-1, 1]. The sign, exponent and first 7 bits of
  // the fraction leave two codes to choose from.
  std::uint8_t code(float x) const {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t size =
        std::clamp(bits & 0x7fffffff, kLeastBits, kOneBits);
    const std::uint8_t lower =
        lower_[bits >> 31][(size - kLeastBits) >> kDroppedBits];
    return static_cast<std::uint8_t>(lower + (upper_[lower] < x ? 1 : 0));
  }

 private:
  // 2^-24, below half of the least value that is not 0, and 1.
  static constexpr std::uint32_t kLeastBits = 0x33800000, kOneBits = 0x3f800000;
  static constexpr unsigned kDroppedBits = 16;
  static constexpr std::size_t kBins =
      ((kOneBits - kLeastBits) >> kDroppedBits) + 1;

  std::array<float, 256> values_{};
  // Half way from one value to the next; the last one is infinite.
  std::array<float, 256> upper_{};
  // [sign][bin]: the code of the bin's least number.
  std::array<std::array<std::uint8_t, kBins>, 2> lower_{};
};

const DynamicMap& signed_dynamic_map();
const DynamicMap& unsigned_dynamic_map();

}  // namespace llmpress
