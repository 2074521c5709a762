#include "quantizers/table4.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <numeric>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/table4.h"
#include "quantizers/activation_range.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

constexpr std::size_t kNestedBlock = 256;

// The table in ascending order with the midpoints between neighbours. FP4 has a
// negative zero, which is left out: its code is never written.
class NearestCode {
 public:
  explicit NearestCode(Table4Kind kind) {
    const std::span<const float> table = table4_values(kind);
    for (std::uint8_t code = 0; code < table.size(); ++code) {
      if (table[code] == 0 && std::signbit(table[code])) continue;
      codes_.push_back(code);
    }
    std::ranges::stable_sort(codes_, [&](std::uint8_t a, std::uint8_t b) {
      return table[a] < table[b];
    });
    for (std::size_t k = 0; k + 1 < codes_.size(); ++k) {
      midpoints_.push_back((table[codes_[k]] + table[codes_[k + 1]]) / 2.0f);
    }
    zero_ = operator()(0.0f);
  }

  std::uint8_t operator()(float x) const {
    const auto above = std::ranges::lower_bound(midpoints_, x);
    return codes_[static_cast<std::size_t>(above - midpoints_.begin())];
  }
  std::uint8_t zero() const { return zero_; }

 private:
  std::vector<std::uint8_t> codes_;
  std::vector<float> midpoints_;
  std::uint8_t zero_ = 0;
};

std::size_t block_size_of(const WeightScheme& scheme, ConstMatrixView W) {
  if (scheme.group_size == 0) return W.size();
  if (scheme.group_size < 0) return W.cols();
  return std::min(static_cast<std::size_t>(scheme.group_size), W.size());
}

std::vector<float> block_maxima(ConstMatrixView W, std::size_t block_size,
                                ThreadPool& pool) {
  std::vector<float> maxima(ceil_div(W.size(), block_size));
  pool.for_ranges(maxima.size(), 256, [&](std::size_t begin, std::size_t end) {
    for (std::size_t b = begin; b < end; ++b) {
      const std::size_t first = b * block_size;
      const std::size_t n = std::min(block_size, W.size() - first);
      for (const float w : W.data().subspan(first, n)) {
        maxima[b] = std::max(maxima[b], std::abs(w));
      }
    }
  });
  return maxima;
}

// Index of the nearest value of the ascending map, the lower at a tie.
std::uint8_t nearest_in_map(float x) {
  const std::span<const float> map = nested_absmax_map();
  const auto above = std::ranges::lower_bound(map, x);
  if (above == map.begin()) return 0;
  if (above == map.end()) return static_cast<std::uint8_t>(map.size() - 1);
  const auto k = static_cast<std::size_t>(above - map.begin());
  return static_cast<std::uint8_t>(x - map[k - 1] <= map[k] - x ? k - 1 : k);
}

// Moves q.absmax into its nested form; returns what a reader decodes.
std::vector<float> nest_maxima(Table4Weight& q) {
  std::vector<float> maxima = std::move(q.absmax);
  q.absmax = {};
  double sum = 0;
  for (const float a : maxima) sum += static_cast<double>(a);
  q.nested_offset =
      static_cast<float>(sum / static_cast<double>(maxima.size()));
  q.absmax_codes.resize(maxima.size());
  for (std::size_t first = 0; first < maxima.size(); first += kNestedBlock) {
    const std::size_t last = std::min(first + kNestedBlock, maxima.size());
    float largest = 0;
    for (std::size_t b = first; b < last; ++b) {
      largest = std::max(largest, std::abs(maxima[b] - q.nested_offset));
    }
    q.nested_absmax.push_back(largest);
    for (std::size_t b = first; b < last; ++b) {
      const float x = largest > 0 ? (maxima[b] - q.nested_offset) / largest : 0;
      q.absmax_codes[b] = nearest_in_map(x);
      maxima[b] =
          nested_absmax_map()[q.absmax_codes[b]] * largest + q.nested_offset;
    }
  }
  return maxima;
}

}  // namespace

Table4Weight quantize_table4(ConstMatrixView W, const WeightScheme& scheme,
                             ThreadPool& pool) {
  assert(scheme.type == WeightType::kNf4 || scheme.type == WeightType::kFp4);
  Table4Weight q{.out = W.rows(),
                 .in = W.cols(),
                 .kind = scheme.type == WeightType::kNf4 ? Table4Kind::kNf4
                                                         : Table4Kind::kFp4,
                 .block_size = block_size_of(scheme, W)};
  q.absmax = block_maxima(W, q.block_size, pool);
  const std::vector<float> scales =
      scheme.double_quant ? nest_maxima(q) : q.absmax;
  const NearestCode nearest(q.kind);
  q.codes.resize(ceil_div(W.size(), 2));
  const auto code_at = [&](std::size_t k) -> std::uint8_t {
    if (k >= W.size()) return nearest.zero();  // the odd one out
    const float scale = scales[k / q.block_size];
    // A nested scale may come out as 0.
    return scale == 0 ? nearest.zero() : nearest(W.data()[k] / scale);
  };
  pool.for_ranges(
      q.codes.size(), 1 << 14, [&](std::size_t begin, std::size_t end) {
        for (std::size_t k = begin; k < end; ++k) {
          q.codes[k] = static_cast<std::uint8_t>(code_at(2 * k) << 4 |
                                                 code_at(2 * k + 1));
        }
      });
  return q;
}

namespace {

QuantizeResult quantize_nf4(const QuantizeRequest& request) {
  const WeightType type = request.config->weights.type;
  if (type != WeightType::kNf4 && type != WeightType::kFp4) {
    fail(ErrorCode::kInvalidArgument,
         "{}: nf4: weights.type must be nf4 or fp4", request.name);
  }
  return quantize_rtn(request);
}

}  // namespace

QuantizerMethod nf4_method() {
  return {.name = "nf4",
          .summary = "4-bit table, weights of type `nf4` or `fp4`",
          .paper = "arXiv:2305.14314",
          .weights = WeightKinds::kTables,
          .needs =
              [](const QuantizeConfig& config) {
                return activation_needs(config.input);
              },
          .quantize = quantize_nf4,
          .scheme = "NF4",
          .rounds_rows_apart = rounds_rows_apart,
          .made =
              [](const PackedWeight& weight, const ActivationQuant&,
                 QuantizeConfig&) {
                return std::holds_alternative<Table4Weight>(weight);
              }};
}

}  // namespace llmpress
