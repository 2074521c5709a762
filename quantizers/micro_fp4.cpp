#include "quantizers/micro_fp4.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerChunk = 16;
constexpr std::uint8_t kE4M3Eps = 0x20;  // 0.125, of a group of zeros

float largest_of(std::span<const float> w) {
  float largest = 0;
  for (const float x : w) largest = std::max(largest, std::abs(x));
  return largest;
}

// The multiplying scale that a reader derives from the stored octet.
float decoded_scale(const MicroFp4Weight& q, std::uint8_t octet) {
  return q.kind == MicroFp4Kind::kMxfp4 ? e8m0_to_float(octet)
                                        : e4m3_to_float(octet) / q.global_scale;
}

std::uint8_t mxfp4_octet(float largest) {
  if (largest == 0) return 127;
  // Rounds up from a mantissa of 1.75: adding 2^21 carries into the exponent.
  const auto bits = std::bit_cast<std::uint32_t>(largest) + (1u << 21);
  return static_cast<std::uint8_t>(
      std::clamp(static_cast<int>(bits >> 23) - 2, 0, 254));
}

std::uint8_t nvfp4_octet(float largest, float global_scale) {
  if (largest == 0) return kE4M3Eps;
  // Never 0: a group that is tiny beside the tensor keeps a subnormal scale.
  return std::max<std::uint8_t>(
      1, e4m3_from_float(largest / kE2M1Max * global_scale));
}

double squared_error(std::span<const float> w, float scale) {
  double sum = 0;
  for (const float x : w) {
    const float d = e2m1_to_float(e2m1_from_float(x / scale)) * scale - x;
    sum += static_cast<double>(d) * static_cast<double>(d);
  }
  return sum;
}

// The best of the octets within `reach` of `octet`, itself first.
std::uint8_t search_octet(const MicroFp4Weight& q, std::span<const float> w,
                          std::uint8_t octet, int reach) {
  // E4M3: 0x7f is NaN; E8M0: 0xff is.
  const int top = q.kind == MicroFp4Kind::kMxfp4 ? 254 : 126;
  const int bottom = q.kind == MicroFp4Kind::kMxfp4 ? 0 : 1;
  std::uint8_t best = octet;
  double best_error = squared_error(w, decoded_scale(q, octet));
  for (int k = std::max(bottom, octet - reach);
       k <= std::min(top, octet + reach); ++k) {
    const auto candidate = static_cast<std::uint8_t>(k);
    const double error = squared_error(w, decoded_scale(q, candidate));
    if (error < best_error) {
      best_error = error;
      best = candidate;
    }
  }
  return best;
}

void encode_row(std::span<const float> w, const WeightScheme& scheme,
                std::size_t row, MicroFp4Weight& q) {
  const std::size_t group = q.group(), groups = ceil_div(q.in, group);
  std::uint8_t* codes = q.codes.data() + row * ceil_div(q.in, 2);
  for (std::size_t g = 0; g < groups; ++g) {
    const std::size_t first = g * group;
    const auto part = w.subspan(first, std::min(group, q.in - first));
    const float largest = largest_of(part);
    const bool mx = q.kind == MicroFp4Kind::kMxfp4;
    std::uint8_t octet =
        mx ? mxfp4_octet(largest) : nvfp4_octet(largest, q.global_scale);
    if (scheme.range == RangeSearch::kMse && largest > 0) {
      octet = search_octet(q, part, octet, mx ? 1 : 8);
    }
    q.scales[row * groups + g] = octet;
    const float scale = decoded_scale(q, octet);
    for (std::size_t i = 0; i < part.size(); ++i) {
      const std::uint8_t code = e2m1_from_float(part[i] / scale);
      codes[(first + i) / 2] |=
          static_cast<std::uint8_t>((first + i) % 2 == 0 ? code : code << 4);
    }
  }
}

}  // namespace

MicroFp4Weight quantize_micro_fp4(ConstMatrixView W, const WeightScheme& scheme,
                                  ThreadPool& pool) {
  assert(scheme.type == WeightType::kMxfp4 ||
         scheme.type == WeightType::kNvfp4);
  MicroFp4Weight q{.out = W.rows(),
                   .in = W.cols(),
                   .kind = scheme.type == WeightType::kMxfp4
                               ? MicroFp4Kind::kMxfp4
                               : MicroFp4Kind::kNvfp4};
  q.codes.resize(q.out * ceil_div(q.in, 2));
  q.scales.resize(q.out * ceil_div(q.in, q.group()));
  if (q.kind == MicroFp4Kind::kNvfp4) {
    const float global = kE4M3Max * kE2M1Max / largest_of(W.data());
    q.global_scale = std::isfinite(global) ? global : 1.0f;
  }
  pool.for_ranges(q.out, kRowsPerChunk,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t o = begin; o < end; ++o) {
                      encode_row(W.row(o), scheme, o, q);
                    }
                  });
  return q;
}

}  // namespace llmpress
