#include "lora/combine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr std::size_t kGrain = 1 << 14;  // elements of a chunk

struct MethodName {
  CombineMethod method;
  std::string_view name;
};
constexpr std::array<MethodName, 4> kNames{
    {{CombineMethod::kLinear, "linear"},
     {CombineMethod::kTies, "ties"},
     {CombineMethod::kDareLinear, "dare_linear"},
     {CombineMethod::kDareTies, "dare_ties"}}};

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "combine: " + what);
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

double sum_of(Values weighted) {
  double sum = 0;
  for (const double v : weighted) sum += v;
  return sum;
}

// The mean of those with the elected sign; zeros have none.
double disjoint_mean(Values weighted) {
  const bool plus = sum_of(weighted) >= 0;
  double sum = 0;
  std::size_t count = 0;
  for (const double v : weighted) {
    if (v == 0 || (v > 0) != plus) continue;
    sum += v;
    ++count;
  }
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

void check_changes(std::span<const MatrixF> changes,
                   std::span<const double> weights) {
  if (changes.empty()) fail("no changes");
  if (weights.size() != changes.size()) {
    fail(std::to_string(weights.size()) + " weights for " +
         std::to_string(changes.size()) + " changes");
  }
  for (const MatrixF& D : changes) {
    if (D.rows() != changes[0].rows() || D.cols() != changes[0].cols()) {
      fail("changes of different shapes");
    }
  }
}

MatrixF reduce(std::span<const MatrixF> changes,
               std::span<const double> weights, double (*one)(Values),
               ThreadPool& pool) {
  MatrixF result(changes[0].rows(), changes[0].cols());
  pool.for_ranges(result.size(), kGrain, [&](std::size_t b, std::size_t e) {
    std::vector<double> weighted(changes.size());
    for (std::size_t i = b; i < e; ++i) {
      for (std::size_t t = 0; t < changes.size(); ++t) {
        weighted[t] = weights[t] * changes[t].data()[i];
      }
      const auto value = static_cast<float>(one(weighted));
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

std::string_view name_of(CombineMethod method) {
  return kNames[static_cast<std::size_t>(method)].name;
}

std::optional<CombineMethod> parse_combine_method(std::string_view name) {
  for (const MethodName& row : kNames) {
    if (row.name == name) return row.method;
  }
  return std::nullopt;
}

void check(const CombineConfig& config) {
  if (config.density > 0 && config.density <= 1) return;
  fail("density is " + std::to_string(config.density) +
       ", wanted above 0 and at most 1");
}

void trim_in_place(double density, MatrixView<float> D) {
  const std::size_t n = D.size();
  const auto rounded =
      static_cast<std::size_t>(std::llround(density * static_cast<double>(n)));
  const std::size_t keep = std::clamp<std::size_t>(rounded, 1, n + (n == 0));
  if (keep >= n) return;
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
  switch (config.method) {
    case CombineMethod::kLinear:
      return reduce(changes, weights, sum_of, pool);
    case CombineMethod::kTies:
      for_changes([&](std::size_t t) {
        trim_in_place(config.density, changes[t].view());
      });
      return reduce(changes, weights, disjoint_mean, pool);
    case CombineMethod::kDareLinear:
    case CombineMethod::kDareTies:
      for_changes([&](std::size_t t) {
        drop_in_place(config.density, seeds[t], changes[t].view());
      });
      return reduce(
          changes, weights,
          config.method == CombineMethod::kDareTies ? disjoint_mean : sum_of,
          pool);
  }
  return {};
}

}  // namespace llmpress
