#include "lora/combine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "compress/core/rng.h"
#include "lora/extract.h"

namespace llmpress {
namespace {

constexpr std::size_t kGrain = 1 << 14;  // elements of a chunk

// What a method does with its tensors once they are thinned out.
enum class Thinning { kNone, kTrim, kDrop };

struct MethodRow {
  CombineMethod method;
  std::string_view name;
  Thinning thinning;
  bool elects;
  bool factors;
};
using enum CombineMethod;
constexpr std::array<MethodRow, 11> kRows{{
    {kCat, "cat", Thinning::kNone, false, false},
    {kLinear, "linear", Thinning::kNone, false, true},
    {kTies, "ties", Thinning::kTrim, true, true},
    {kDareLinear, "dare_linear", Thinning::kDrop, false, true},
    {kDareTies, "dare_ties", Thinning::kDrop, true, true},
    {kMagnitudePrune, "magnitude_prune", Thinning::kTrim, false, true},
    {kSvd, "svd", Thinning::kNone, false, false},
    {kTiesSvd, "ties_svd", Thinning::kTrim, true, false},
    {kDareLinearSvd, "dare_linear_svd", Thinning::kDrop, false, false},
    {kDareTiesSvd, "dare_ties_svd", Thinning::kDrop, true, false},
    {kMagnitudePruneSvd, "magnitude_prune_svd", Thinning::kTrim, false, false},
}};

const MethodRow& row_of(CombineMethod method) {
  return kRows[static_cast<std::size_t>(method)];
}

[[noreturn]] void refuse(const std::string& what) {
  fail(ErrorCode::kInvalidArgument, "combine: {}", what);
}

// FNV-1a (Fowler, Noll, Vo), 64 bits: names to seeds, the same everywhere.
std::uint64_t hash_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return hash;
}

// One independent seed for each adapter.
std::vector<std::uint64_t> seeds_of(std::uint64_t seed, std::string_view name,
                                    std::size_t count) {
  Rng rng(seed ^ hash_of(name));
  std::vector<std::uint64_t> seeds(count);
  for (std::uint64_t& s : seeds) s = rng.next();
  return seeds;
}

using Values = std::span<const double>;

double weighted_sum(Values values, Values weights) {
  double sum = 0;
  for (std::size_t t = 0; t < values.size(); ++t) sum += weights[t] * values[t];
  return sum;
}

bool elects_plus(Values values, MajoritySign majority) {
  double votes = 0;
  for (const double v : values) {
    votes += majority == MajoritySign::kTotal ? v : (v > 0) - (v < 0);
  }
  return votes >= 0;
}

// The mean of those with the elected sign; zeros have none.
double disjoint_mean(Values values, Values weights, MajoritySign majority) {
  const bool plus = elects_plus(values, majority);
  double sum = 0;
  std::size_t count = 0;
  for (std::size_t t = 0; t < values.size(); ++t) {
    if (values[t] == 0 || (values[t] > 0) != plus) continue;
    sum += weights[t] * values[t];
    ++count;
  }
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

void check_changes(std::span<const MatrixF> changes,
                   std::span<const double> weights) {
  if (changes.empty()) refuse("no changes");
  if (weights.size() != changes.size()) {
    refuse(
        formatted("{} weights for {} changes", weights.size(), changes.size()));
  }
  for (const MatrixF& D : changes) {
    if (D.rows() != changes[0].rows() || D.cols() != changes[0].cols()) {
      refuse("changes of different shapes");
    }
  }
}

MatrixF reduce(std::span<const MatrixF> changes,
               std::span<const double> weights, const CombineConfig& config,
               ThreadPool& pool) {
  const bool elects = row_of(config.method).elects;
  MatrixF result(changes[0].rows(), changes[0].cols());
  pool.for_ranges(result.size(), kGrain, [&](std::size_t b, std::size_t e) {
    std::vector<double> values(changes.size());
    for (std::size_t i = b; i < e; ++i) {
      for (std::size_t t = 0; t < changes.size(); ++t) {
        values[t] = changes[t].data()[i];
      }
      const auto value = static_cast<float>(
          elects ? disjoint_mean(values, weights, config.majority_sign)
                 : weighted_sum(values, weights));
      if (!std::isfinite(value)) {
        throw Error(ErrorCode::kNumeric,
                    "combine: the combined change is not finite");
      }
      result.data()[i] = value;
    }
  });
  return result;
}

}  // namespace

std::string_view name_of(CombineMethod method) { return row_of(method).name; }

std::optional<CombineMethod> parse_combine_method(std::string_view name) {
  for (const MethodRow& row : kRows) {
    if (row.name == name) return row.method;
  }
  return std::nullopt;
}

std::vector<std::string> combine_method_names() {
  std::vector<std::string> names;
  for (const MethodRow& row : kRows) names.emplace_back(row.name);
  return names;
}

bool combines_factors(CombineMethod method) { return row_of(method).factors; }

void check(const CombineConfig& config) {
  if (config.density > 0 && config.density <= 1) return;
  refuse(
      formatted("density is {}, wanted above 0 and at most 1", config.density));
}

void trim_in_place(double density, MatrixView<float> D) {
  const std::size_t n = D.size();
  const auto keep = static_cast<std::size_t>(density * static_cast<double>(n));
  if (keep >= n) return;
  if (keep == 0) {
    std::ranges::fill(D.data(), 0.0f);
    return;
  }
  std::vector<float> sizes(n);
  for (std::size_t i = 0; i < n; ++i) sizes[i] = std::fabs(D.data()[i]);
  const auto last = sizes.begin() + static_cast<std::ptrdiff_t>(keep - 1);
  std::nth_element(sizes.begin(), last, sizes.end(), std::greater<>());
  const float threshold = *last;
  // Of those equal to the threshold, as many as are still to be kept.
  std::size_t ties = keep;
  for (const float d : D.data()) {
    if (std::fabs(d) > threshold) --ties;
  }
  for (float& d : D.data()) {
    if (std::fabs(d) > threshold) continue;
    if (std::fabs(d) == threshold && ties > 0) {
      --ties;
    } else {
      d = 0;
    }
  }
}

void drop_in_place(double density, std::uint64_t seed, MatrixView<float> D) {
  if (density == 1) return;
  Rng rng(seed);
  for (float& d : D.data()) {
    d = rng.uniform() < density ? static_cast<float>(d / density) : 0.0f;
  }
}

MatrixF combine(std::vector<MatrixF> changes, std::span<const double> weights,
                const CombineConfig& config, std::string_view tensor_name,
                ThreadPool& pool) {
  check(config);
  check_changes(changes, weights);
  const auto seeds = seeds_of(config.seed, tensor_name, changes.size());
  const auto for_changes = [&](const auto& body) {
    pool.for_each(changes.size(), body);
  };
  switch (row_of(config.method).thinning) {
    case Thinning::kNone:
      break;
    case Thinning::kTrim:
      for_changes([&](std::size_t t) {
        trim_in_place(config.density, changes[t].view());
      });
      break;
    case Thinning::kDrop:
      for_changes([&](std::size_t t) {
        drop_in_place(config.density, seeds[t], changes[t].view());
      });
      break;
  }
  return reduce(changes, weights, config, pool);
}

LoraDelta combine_factors(std::span<const LoraDelta> deltas,
                          std::span<const double> weights,
                          const CombineConfig& config,
                          std::string_view tensor_name, ThreadPool& pool) {
  if (deltas.size() != weights.size() || deltas.empty()) refuse("no adapters");
  std::vector<MatrixF> A, B;
  std::vector<double> of_A, of_B;
  const std::string method(name_of(config.method));
  for (std::size_t t = 0; t < deltas.size(); ++t) {
    if (!deltas[t].magnitude.empty()) {
      fail(ErrorCode::kUnsupported,
           "combine: '{}' combines factors, and DoRA is more than its factors; "
           "'cat' and '{}_svd' take it",
           method, method);
    }
    if (deltas[t].A.rows() != deltas[0].A.rows()) {
      refuse(formatted(
          "'{}' combines factors of one rank, found {} and {}; 'cat' takes any",
          method, deltas[0].A.rows(), deltas[t].A.rows()));
    }
    const double v = weights[t] * deltas[t].scaling;
    of_A.push_back(std::copysign(std::sqrt(std::abs(v)), v));
    of_B.push_back(std::sqrt(std::abs(v)));
    A.push_back(deltas[t].A);
    B.push_back(deltas[t].B);
  }
  const std::string name(tensor_name);
  return {.A = combine(std::move(A), of_A, config, name + ".lora_A", pool),
          .B = combine(std::move(B), of_B, config, name + ".lora_B", pool),
          .transposed = deltas[0].transposed};
}

MatrixF combine_changes(std::vector<MatrixF> changes,
                        std::span<const double> weights,
                        const CombineConfig& config,
                        std::string_view tensor_name, ThreadPool& pool) {
  MatrixF D = combine(std::move(changes), weights, config, tensor_name, pool);
  const std::size_t rank = config.svd_rank;
  const bool whole = config.method == CombineMethod::kCat || rank == 0 ||
                     rank >= std::min(D.rows(), D.cols());
  if (whole) return D;
  const MatrixF zero(D.rows(), D.cols());
  const ExtractedLora cut = extract_lora(
      zero.view(), D.view(), {.rank = rank, .seed = config.seed}, pool);
  matmul(cut.B.view(), cut.A.view(), D.view(), pool);
  return D;
}

}  // namespace llmpress
