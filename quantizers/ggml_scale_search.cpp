#include "quantizers/ggml_scale_search.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "compress/core/vector_clones.h"

namespace llmpress {
namespace {

// Of smaller magnitudes a block is taken to be zero.
constexpr float kZeroBelow = 1e-15f;
constexpr std::size_t kMostElements = 64;

// Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
constexpr float kCodeShift = 12582912.0f;
constexpr std::int32_t kCodeMask = 0x007fffff, kCodeZero = 0x00400000;

// The first of the largest magnitude, with its sign.
float peak_of(std::span<const float> x) {
  float magnitude = 0, peak = 0;
  for (const float v : x) {
    if (std::fabs(v) <= magnitude) continue;
    magnitude = std::fabs(v);
    peak = v;
  }
  return peak;
}

int clamped(float x, int least, int most) {
  return std::clamp(nearest_code(x), least, most);
}

// Sums of a fit of x by multiples of a scale: sum w x l and sum w l l.
struct Moments {
  float xl = 0, ll = 0;
  void add(float w, float x, float l) {
    xl += w * x * l;
    ll += w * l * l;
  }
};

// Of all scales that a search tries, side by side; each sum in the order of x.
constexpr std::size_t kTried = 18, kVectors = 3;
struct TriedMoments {
  std::array<float, kVectors * kFloatLanes> inverses{}, xl{}, ll{};
};

LLMPRESS_VECTOR_CLONES
void add_moments(const float* x, const float* weights, std::size_t count,
                 int half, TriedMoments& tried) {
  FloatLanes inverses[kVectors], xl[kVectors] = {}, ll[kVectors] = {};
  std::memcpy(inverses, tried.inverses.data(), sizeof inverses);
  const IntLanes least = IntLanes{} - half, most = IntLanes{} + (half - 1);
  for (std::size_t i = 0; i < count; ++i) {
    const float w = weights[i], wx = w * x[i];
    for (std::size_t v = 0; v < kVectors; ++v) {
      // As nearest_code().
      const FloatLanes shifted = inverses[v] * x[i] + kCodeShift;
      IntLanes code;
      std::memcpy(&code, &shifted, sizeof code);
      code = (code & kCodeMask) - kCodeZero;
      code = code < least ? least : (code > most ? most : code);
      const FloatLanes l = __builtin_convertvector(code, FloatLanes);
      xl[v] += wx * l;
      ll[v] += w * l * l;
    }
  }
  std::memcpy(tried.xl.data(), xl, sizeof xl);
  std::memcpy(tried.ll.data(), ll, sizeof ll);
}

float weight_of(std::span<const float> weights, std::span<const float> x,
                std::size_t i) {
  return weights.empty() ? x[i] * x[i] : weights[i];
}

}  // namespace

int nearest_code(float x) {
  return (std::bit_cast<std::int32_t>(x + kCodeShift) & kCodeMask) - kCodeZero;
}

float fit_signed(std::span<const float> x, int half,
                 std::span<const float> weights,
                 std::span<std::uint8_t> codes) {
  const float peak = peak_of(x);
  if (std::fabs(peak) < kZeroBelow) {
    std::ranges::fill(codes, std::uint8_t{0});
    return 0;
  }
  const auto code_at = [&](float inverse, std::size_t i) {
    return clamped(inverse * x[i], -half, half - 1);
  };
  const auto moments_at = [&](float inverse) {
    Moments sums;
    for (std::size_t i = 0; i < x.size(); ++i) {
      sums.add(weight_of(weights, x, i), x[i],
               static_cast<float>(code_at(inverse, i)));
    }
    return sums;
  };
  float best_inverse = -static_cast<float>(half) / peak;
  Moments sums = moments_at(best_inverse);
  float scale = sums.ll != 0 ? sums.xl / sums.ll : 0.0f;
  float best = scale * sums.xl;
  TriedMoments tried;
  for (std::size_t s = 0; s < kTried; ++s) {
    const int step = static_cast<int>(s) - (s < kTried / 2 ? 9 : 8);
    tried.inverses[s] =
        -(static_cast<float>(half) + 0.1f * static_cast<float>(step)) / peak;
  }
  std::array<float, kMostElements> own{};
  for (std::size_t i = 0; i < x.size(); ++i) own[i] = weight_of(weights, x, i);
  add_moments(x.data(), own.data(), x.size(), half, tried);
  for (std::size_t s = 0; s < kTried; ++s) {
    const float xl = tried.xl[s], ll = tried.ll[s];
    if (!(ll > 0 && xl * xl > best * ll)) continue;
    best_inverse = tried.inverses[s];
    scale = xl / ll;
    best = scale * xl;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(half + code_at(best_inverse, i));
  }
  return scale;
}

float fit_signed_stepwise(std::span<const float> x, int half,
                          std::span<std::uint8_t> codes) {
  const float peak = peak_of(x);
  if (std::fabs(peak) < kZeroBelow) {
    std::ranges::fill(codes, std::uint8_t{0});
    return 0;
  }
  std::array<int, kMostElements> l{};
  const float inverse = -static_cast<float>(half) / peak;
  Moments sums;
  for (std::size_t i = 0; i < x.size(); ++i) {
    l[i] = clamped(inverse * x[i], -half, half - 1);
    sums.add(x[i] * x[i], x[i], static_cast<float>(l[i]));
  }
  for (int round = 0; round < 5; ++round) {
    bool changed = false;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float w = x[i] * x[i], own = static_cast<float>(l[i]);
      Moments others{sums.xl - w * x[i] * own, 0};
      if (!(others.xl > 0)) continue;
      others.ll = sums.ll - w * own * own;
      const int better = clamped(x[i] * others.ll / others.xl, -half, half - 1);
      if (better == l[i]) continue;
      others.add(w, x[i], static_cast<float>(better));
      if (others.ll > 0 &&
          others.xl * others.xl * sums.ll > sums.xl * sums.xl * others.ll) {
        l[i] = better;
        sums = others;
        changed = true;
      }
    }
    if (!changed) break;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(l[i] + half);
  }
  return sums.ll > 0 ? sums.xl / sums.ll : 0.0f;
}

namespace {

// One set of weights that fit_affine() looks at again and again.
class AffineSums {
 public:
  AffineSums(std::span<const float> x, std::span<const float> weights,
             bool absolute)
      : x_(x), weights_(weights), absolute_(absolute) {
    w_ = weights[0];
    wx_ = w_ * x[0];
    for (std::size_t i = 1; i < x.size(); ++i) {
      w_ += weights[i];
      wx_ += weights[i] * x[i];
    }
  }

  float error(std::span<const std::uint8_t> codes, float scale,
              float least) const {
    float sum = 0;
    for (std::size_t i = 0; i < x_.size(); ++i) {
      float d = scale * static_cast<float>(codes[i]) + least - x_[i];
      d = absolute_ ? std::fabs(d) : d * d;
      sum += weights_[i] * d;
    }
    return sum;
  }

  // Scale and least value that fit `codes` best, the latter not above 0.
  bool solve(std::span<const std::uint8_t> codes, float& scale,
             float& least) const {
    float l = 0, ll = 0, xl = 0;
    for (std::size_t i = 0; i < x_.size(); ++i) {
      const float w = weights_[i], q = static_cast<float>(codes[i]);
      l += w * q;
      ll += w * q * q;
      xl += w * q * x_[i];
    }
    const float determinant = w_ * ll - l * l;
    if (!(determinant > 0)) return false;
    scale = (w_ * xl - wx_ * l) / determinant;
    least = (ll * wx_ - l * xl) / determinant;
    if (least > 0) {
      least = 0;
      scale = xl / ll;
    }
    return true;
  }

 private:
  std::span<const float> x_, weights_;
  bool absolute_;
  float w_ = 0, wx_ = 0;
};

}  // namespace

AffineFit fit_affine(std::span<const float> x, int most,
                     std::span<const float> weights, const AffineSearch& search,
                     std::span<std::uint8_t> codes) {
  const auto [low, high] = std::ranges::minmax(x);
  float least = std::min(low, 0.0f);
  if (high <= least) {
    std::ranges::fill(codes, std::uint8_t{0});
    return {0, -least};
  }
  const auto round_to = [&](float inverse, std::span<std::uint8_t> to) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      to[i] =
          static_cast<std::uint8_t>(clamped(inverse * (x[i] - least), 0, most));
    }
  };
  const AffineSums sums(x, weights, search.absolute);
  const float inverse = static_cast<float>(most) / (high - least);
  float scale = 1 / inverse;
  round_to(inverse, codes);
  float best = sums.error(codes, scale, least);
  std::array<std::uint8_t, kMostElements> tried{};
  const std::span<std::uint8_t> trial = std::span(tried).first(x.size());
  for (int step = 0; step <= search.steps; ++step) {
    // `least` is that of the best grid so far, as in the reference.
    round_to((search.first + search.step * static_cast<float>(step) +
              static_cast<float>(most)) /
                 (high - least),
             trial);
    float s = 0, m = 0;
    if (!sums.solve(trial, s, m)) continue;
    const float error = sums.error(trial, s, m);
    if (!(error < best)) continue;
    std::ranges::copy(trial, codes.begin());
    best = error;
    scale = s;
    least = m;
  }
  return {scale, -least};
}

float fit_positive(std::span<const float> x, int most,
                   std::span<const float> weights,
                   std::span<std::uint8_t> codes) {
  const float high = std::max(0.0f, *std::ranges::max_element(x));
  if (high < kZeroBelow) {
    std::ranges::fill(codes, std::uint8_t{0});
    return 0;
  }
  const auto code_at = [&](float inverse, std::size_t i) {
    return static_cast<float>(std::min(most, nearest_code(inverse * x[i])));
  };
  const auto error_at = [&](float inverse) {
    const float scale = 1 / inverse;
    float sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float d = x[i] - scale * code_at(inverse, i);
      sum += weights[i] * d * d;
    }
    return sum;
  };
  float inverse = static_cast<float>(most) / high;
  float best = error_at(inverse);
  for (int step = -4; step <= 4; ++step) {
    if (step == 0) continue;
    const float tried =
        (0.1f * static_cast<float>(step) + static_cast<float>(most)) / high;
    const float error = error_at(tried);
    if (!(error < best)) continue;
    best = error;
    inverse = tried;
  }
  Moments sums;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float l = code_at(inverse, i);
    codes[i] = static_cast<std::uint8_t>(l);
    sums.add(weights[i], x[i], l);
  }
  for (int round = 0; round < 5; ++round) {
    bool changed = false;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float w = weights[i], own = static_cast<float>(codes[i]);
      Moments others{sums.xl - w * x[i] * own, sums.ll - w * own * own};
      if (!(others.xl > 0 && others.ll > 0)) continue;
      const int better =
          std::min(most, nearest_code(x[i] * others.ll / others.xl));
      if (better == codes[i]) continue;
      others.add(w, x[i], static_cast<float>(better));
      if (others.xl * others.xl * sums.ll > sums.xl * sums.xl * others.ll) {
        codes[i] = static_cast<std::uint8_t>(better);
        sums = others;
        changed = true;
      }
    }
    if (!changed) break;
  }
  return sums.ll > 0 ? sums.xl / sums.ll : 0.0f;
}

std::uint8_t nearest_entry(std::span<const std::int8_t> table, float x) {
  if (x <= static_cast<float>(table.front())) return 0;
  if (x >= static_cast<float>(table.back())) {
    return static_cast<std::uint8_t>(table.size() - 1);
  }
  const auto above = std::ranges::upper_bound(
      table, x, {}, [](std::int8_t v) { return static_cast<float>(v); });
  const auto up = static_cast<float>(*above),
             down = static_cast<float>(*(above - 1));
  const auto index = static_cast<std::uint8_t>(above - table.begin());
  return x - down < up - x ? static_cast<std::uint8_t>(index - 1) : index;
}

float fit_table(std::span<const float> x, std::span<const std::int8_t> table,
                std::span<const float> weights) {
  constexpr int kTries = 7;
  const float peak = peak_of(x);
  if (std::fabs(peak) < kZeroBelow) return 0;
  const auto first = static_cast<float>(table.front());
  const auto moments_at = [&](float inverse) {
    Moments sums;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto q =
          static_cast<float>(table[nearest_entry(table, inverse * x[i])]);
      sums.xl += weights[i] * q * x[i];
      sums.ll += weights[i] * q * q;
    }
    return sums;
  };
  Moments sums = moments_at(1 / (-peak / first));
  float scale = sums.ll > 0 ? sums.xl / sums.ll : 0.0f;
  float best = scale * sums.xl;
  for (int step = -kTries; step <= kTries; ++step) {
    sums = moments_at((static_cast<float>(step) + first) / peak);
    if (!(sums.ll > 0 && sums.xl * sums.xl > best * sums.ll)) continue;
    scale = sums.xl / sums.ll;
    best = scale * sums.xl;
  }
  return scale;
}

}  // namespace llmpress
