#include "compress/pipeline/evaluation/zero_points.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "compress/core/bit_packing.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr std::size_t kRows = 64;  // of a Linear are enough for its mean

struct Spread {
  double mean = 0, deviation = 0;
};

// Of q - z over up to kRows rows, spread over all.
Spread distance_from_zero(const GroupedIntWeight& w) {
  const std::size_t step = std::max<std::size_t>(w.out / kRows, 1);
  const std::size_t groups = w.groups();
  std::vector<std::uint8_t> codes(w.in);
  double sum = 0, squares = 0;
  std::size_t count = 0;
  for (std::size_t o = 0; o < w.out; o += step) {
    unpack_codes(
        std::span(w.codes).subspan(o * w.words_per_row(), w.words_per_row()),
        w.bits, codes);
    for (std::size_t i = 0; i < w.in; ++i) {
      const std::size_t g = w.g_idx.empty() ? i / w.group_size : w.g_idx[i];
      const double zero = w.symmetric ? 1 << (w.bits - 1)
                          : w.float_zeros.empty()
                              ? w.zeros[o * groups + g]
                              : w.float_zeros[o * groups + g];
      const double distance = codes[i] - zero;
      sum += distance;
      squares += distance * distance;
    }
    count += w.in;
  }
  if (count == 0) return {};
  const double mean = sum / static_cast<double>(count);
  const double variance = squares / static_cast<double>(count) - mean * mean;
  return {mean, std::sqrt(std::max(variance, 0.0))};
}

}  // namespace

void ZeroPointGuess::add(const PackedWeight& weight) {
  const auto* const ints = std::get_if<GroupedIntWeight>(&weight);
  if (ints == nullptr) return;
  const auto [mean, deviation] = distance_from_zero(*ints);
  constexpr double kLeastDeviation = 0.25;  // less: no trained weights
  if (deviation < kLeastDeviation) return;
  ++linears_;
  sum_ += mean;
  above_ += mean > 0.75 && mean < 1.25 ? 1 : 0;
  below_ += mean < -0.75 && mean > -1.25 ? 1 : 0;
}

std::optional<std::string> ZeroPointGuess::problem() const {
  if (linears_ == 0 || 10 * std::max(above_, below_) < 9 * linears_) {
    return std::nullopt;
  }
  const bool above = above_ > below_;
  return formatted(
      "codes lie {:.2f} steps {} their zero points on average, where trained "
      "weights lie about them: the zero points are one too {}, as in {}",
      std::abs(sum_ / static_cast<double>(linears_)), above ? "above" : "below",
      above ? "small" : "large",
      above ? "a file of GPTQ's first version (gptq) that says gptq_v2"
            : "a file of GPTQ's second version (gptq_v2) that says gptq");
}

}  // namespace llmpress
