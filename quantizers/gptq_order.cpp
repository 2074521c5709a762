#include "quantizers/gptq_order.h"

#include <algorithm>
#include <numeric>

#include "quantizers/int_grid.h"

namespace llmpress {
namespace {

using Indices = std::vector<std::uint32_t>;

// Descending, first come first at ties, so that the order is reproducible.
void sort_by_diagonal(std::span<std::uint32_t> columns,
                      std::span<const float> diagonal) {
  std::ranges::stable_sort(columns, [&](std::uint32_t a, std::uint32_t b) {
    return diagonal[a] > diagonal[b];
  });
}

// Each group sorted by its diagonal, groups by their largest entry; a short
// group stays last, so that the others keep starting at multiples of
// group_size.
void sort_within_groups(Indices& columns, std::span<const float> diagonal,
                        std::size_t group_size) {
  std::vector<Indices> groups;
  for (std::size_t begin = 0; begin < columns.size(); begin += group_size) {
    const std::size_t end = std::min(begin + group_size, columns.size());
    groups.emplace_back(columns.begin() + static_cast<std::ptrdiff_t>(begin),
                        columns.begin() + static_cast<std::ptrdiff_t>(end));
    sort_by_diagonal(groups.back(), diagonal);
  }
  std::ranges::stable_sort(groups, [&](const Indices& a, const Indices& b) {
    if (a.size() != b.size()) return a.size() > b.size();
    return diagonal[a.front()] > diagonal[b.front()];
  });
  columns.clear();
  for (const Indices& group : groups) {
    columns.insert(columns.end(), group.begin(), group.end());
  }
}

// Near `wanted`, a multiple or a divisor of group_size.
std::size_t aligned_block_size(std::size_t wanted, std::size_t group_size) {
  if (group_size <= wanted) return wanted / group_size * group_size;
  for (std::size_t size = wanted; 2 * size > wanted; --size) {
    if (group_size % size == 0) return size;
  }
  return group_size;  // no divisor of a useful size
}

}  // namespace

GptqOrder make_gptq_order(std::span<const float> diagonal,
                          const WeightScheme& scheme,
                          const GptqConfig& config) {
  const std::size_t in = diagonal.size();
  const std::size_t group_size = resolved_group_size(scheme, in);
  const bool grouped = group_size < in;
  GptqOrder order{.column = Indices(in),
                  .group = Indices(in),
                  .fit_count = Indices(in),
                  .block_size = config.block_size,
                  .stale_grids = config.stale_grid};
  if (grouped && !config.stale_grid) {
    order.block_size = aligned_block_size(config.block_size, group_size);
  }
  std::iota(order.column.begin(), order.column.end(), 0u);
  order.permuted = config.act_order || config.group_aware_order;
  if (config.act_order) {
    sort_by_diagonal(order.column, diagonal);
  } else if (config.group_aware_order) {
    sort_within_groups(order.column, diagonal, group_size);
  }
  // One grid for the whole tensor cannot be fitted row by row.
  order.fixed_grids = scheme.group_size == 0 ||
                      (config.act_order && config.static_groups && grouped);
  const bool by_position = config.act_order && grouped && !order.fixed_grids;
  for (std::size_t p = 0; p < in; ++p) {
    const std::size_t of = by_position ? p : order.column[p];
    order.group[p] = static_cast<std::uint32_t>(of / group_size);
  }
  if (by_position) {
    order.g_idx.resize(in);
    for (std::size_t p = 0; p < in; ++p) {
      order.g_idx[order.column[p]] = order.group[p];
    }
  }
  for (std::size_t p = 0; p < in && !order.fixed_grids;) {
    std::size_t end = p + 1;
    while (end < in && order.group[end] == order.group[p]) ++end;
    order.fit_count[p] = static_cast<std::uint32_t>(end - p);
    p = end;
  }
  return order;
}

}  // namespace llmpress
