#include "pruning/mask.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>

#include "compress/core/checked.h"

namespace llmpress {
namespace {

// Elements of a matrix that one thread counts at a time.
constexpr std::size_t kGrain = std::size_t{1} << 16;

// Floats that are not negative are ordered as their bits are. The sign, of -0
// or of a NaN from weights that overflowed, does not count.
std::uint32_t key(float score) {
  return std::bit_cast<std::uint32_t>(score) & 0x7fffffff;
}

// The 31 bits of a key in three digits, highest first.
struct Digit {
  int shift;
  std::uint32_t mask;
};
constexpr std::array<Digit, 3> kDigits = {
    {{20, 0x7ff}, {10, 0x3ff}, {0, 0x3ff}}};

using Counts = std::array<std::size_t, 2048>;

// How often each value of `digit` occurs among keys whose higher digits are
// those of `prefix`.
Counts count_digit(std::span<const float> scores, Digit digit,
                   std::uint32_t prefix, ThreadPool& pool) {
  const std::uint32_t above =
      ~((digit.mask << digit.shift) | ((std::uint32_t{1} << digit.shift) - 1));
  std::vector<Counts> partial(ceil_div(scores.size(), kGrain));
  pool.for_ranges(scores.size(), kGrain,
                  [&](std::size_t begin, std::size_t end) {
                    Counts& counts = partial[begin / kGrain];
                    for (std::size_t i = begin; i < end; ++i) {
                      const std::uint32_t k = key(scores[i]);
                      if ((k & above) == prefix)
                        ++counts[(k >> digit.shift) & digit.mask];
                    }
                  });
  Counts total{};
  for (const Counts& counts : partial) {
    for (std::size_t d = 0; d < total.size(); ++d) total[d] += counts[d];
  }
  return total;
}

// The key of rank `rank` (from 0), and how many keys below it there are.
struct Ranked {
  std::uint32_t key;
  std::size_t below;
};

Ranked find_rank(std::span<const float> scores, std::size_t rank,
                 ThreadPool& pool) {
  Ranked found{0, 0};
  for (const Digit digit : kDigits) {
    const Counts counts = count_digit(scores, digit, found.key, pool);
    std::uint32_t d = 0;
    while (found.below + counts[d] <= rank) found.below += counts[d++];
    found.key |= d << digit.shift;
  }
  return found;
}

}  // namespace

std::size_t rank_threshold_count(std::size_t count, double sparsity) {
  if (count == 0 || sparsity <= 0) return 0;
  return std::min(
      count,
      static_cast<std::size_t>(static_cast<double>(count) * sparsity) + 1);
}

void mask_lowest(std::span<const float> scores, std::size_t remove,
                 std::span<std::uint8_t> mask) {
  assert(scores.size() == mask.size() && remove <= scores.size());
  std::ranges::fill(mask, std::uint8_t{1});
  if (remove == 0) return;
  // Score and position in one number: no two are equal.
  std::vector<std::uint64_t> order(scores.size());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    order[i] = std::uint64_t{key(scores[i])} << 32 | i;
  }
  const auto last = order.begin() + static_cast<std::ptrdiff_t>(remove) - 1;
  std::nth_element(order.begin(), last, order.end());
  for (auto it = order.begin(); it <= last; ++it) {
    mask[*it & 0xffffffff] = 0;
  }
}

void mask_lowest(ConstMatrixView scores, std::size_t remove,
                 MatrixView<std::uint8_t> mask, ThreadPool& pool) {
  assert(scores.size() == mask.size() && remove <= scores.size());
  const std::span<const float> from = scores.data();
  const std::span<std::uint8_t> to = mask.data();
  if (remove == 0) {
    std::ranges::fill(to, std::uint8_t{1});
    return;
  }
  const Ranked last = find_rank(from, remove - 1, pool);
  // Ties with the last one that goes: the first of them, in order of position.
  std::vector<std::size_t> ties(ceil_div(from.size(), kGrain));
  pool.for_ranges(from.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    std::size_t equal = 0;
    for (std::size_t i = begin; i < end; ++i) equal += key(from[i]) == last.key;
    ties[begin / kGrain] = equal;
  });
  std::size_t left = remove - last.below;
  for (std::size_t& chunk : ties) {
    chunk = std::min(chunk, left);
    left -= chunk;
  }
  pool.for_ranges(from.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    std::size_t ties_to_remove = ties[begin / kGrain];
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint32_t k = key(from[i]);
      to[i] = k > last.key;
      if (k == last.key) {
        to[i] = ties_to_remove == 0;
        if (ties_to_remove > 0) --ties_to_remove;
      }
    }
  });
}

void mask_pattern(std::span<const float> scores, std::size_t keep,
                  std::size_t of, std::span<std::uint8_t> mask) {
  assert(scores.size() == mask.size() && keep < of);
  for (std::size_t begin = 0; begin < scores.size(); begin += of) {
    const std::size_t size = std::min(of, scores.size() - begin);
    const auto group = scores.subspan(begin, size);
    for (std::size_t i = 0; i < size; ++i) {
      // Those that stay before i: higher, or equal and later.
      std::size_t better = 0;
      for (std::size_t j = 0; j < size; ++j) {
        better += group[j] > group[i] || (group[j] == group[i] && j > i);
      }
      mask[begin + i] = better < keep;
    }
  }
}

double sparsity_of(MatrixView<const std::uint8_t> mask) {
  if (mask.size() == 0) return 0;
  const auto zeros = std::ranges::count(mask.data(), std::uint8_t{0});
  return static_cast<double>(zeros) / static_cast<double>(mask.size());
}

}  // namespace llmpress
