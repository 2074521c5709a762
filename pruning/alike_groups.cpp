#include "pruning/alike_groups.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <span>
#include <utility>

namespace llmpress {
namespace {

// An exchange must gain more than rounding can, so that the search ends: every
// one raises a bounded sum.
constexpr double kLeastGain = 1e-6;

// Similarity of item a to the members of a group, itself and `skip` left out.
double to_group(const MatrixF& similarity, std::span<const std::size_t> group,
                std::size_t a, std::size_t skip) {
  double sum = 0;
  for (const std::size_t b : group) {
    if (b != skip && b != a) sum += static_cast<double>(similarity(a, b));
  }
  return sum;
}

}  // namespace

std::vector<std::size_t> group_alike(const MatrixF& similarity,
                                     std::size_t size) {
  assert(size > 0 && similarity.rows() % size == 0);
  std::vector<std::size_t> order(similarity.rows());
  std::iota(order.begin(), order.end(), 0u);
  const auto group_of = [&](std::size_t position) {
    return std::span(order).subspan(position / size * size, size);
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t i = 0; i < order.size(); ++i) {
      for (std::size_t j = (i / size + 1) * size; j < order.size(); ++j) {
        const std::size_t a = order[i], b = order[j];
        const double now = to_group(similarity, group_of(i), a, a) +
                           to_group(similarity, group_of(j), b, b);
        const double then = to_group(similarity, group_of(j), a, b) +
                            to_group(similarity, group_of(i), b, a);
        if (then > now + kLeastGain) {
          std::swap(order[i], order[j]);
          changed = true;
        }
      }
    }
  }
  // One name for each grouping: ascending within groups, groups by their first.
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t begin = 0; begin < order.size(); begin += size) {
    std::ranges::sort(group_of(begin));
    groups.emplace_back(group_of(begin).begin(), group_of(begin).end());
  }
  std::ranges::sort(groups);
  order.clear();
  for (const auto& group : groups) {
    order.insert(order.end(), group.begin(), group.end());
  }
  return order;
}

}  // namespace llmpress
