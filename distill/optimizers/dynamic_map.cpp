#include "distill/optimizers/dynamic_map.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace llmpress {
namespace {

constexpr int kExponents = 7;

std::vector<double> sorted_values(bool with_sign) {
  std::vector<double> values{0, 1};
  for (int e = 0; e < kExponents; ++e) {
    const int parts = 1 << (with_sign ? e : e + 1);
    for (int i = 0; i < parts; ++i) {
      const double centre = 0.1 + 0.9 * (i + 0.5) / parts;
      const double value = std::pow(10.0, e - (kExponents - 1)) * centre;
      values.push_back(value);
      if (with_sign) values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  return values;
}

}  // namespace

DynamicMap::DynamicMap(bool with_sign) {
  const std::vector<double> values = sorted_values(with_sign);
  for (std::size_t c = 0; c < values_.size(); ++c) {
    values_[c] = static_cast<float>(values[c]);
    upper_[c] = c + 1 < values.size()
                    ? static_cast<float>((values[c] + values[c + 1]) / 2)
                    : std::numeric_limits<float>::infinity();
  }
  const auto code_of = [&](float x) {
    return static_cast<std::uint8_t>(
        std::lower_bound(upper_.begin(), upper_.end(), x) - upper_.begin());
  };
  for (std::uint32_t bin = 0; bin < kBins; ++bin) {
    const std::uint32_t bits = kLeastBits + (bin << kDroppedBits);
    const std::uint32_t last = bits + (1u << kDroppedBits) - 1;
    // What is below the first bin is in it.
    lower_[0][bin] = code_of(bin == 0 ? 0 : std::bit_cast<float>(bits));
    lower_[1][bin] = code_of(-std::bit_cast<float>(last));
  }
}

const DynamicMap& signed_dynamic_map() {
  static const DynamicMap map(true);
  return map;
}

const DynamicMap& unsigned_dynamic_map() {
  static const DynamicMap map(false);
  return map;
}

}  // namespace llmpress
