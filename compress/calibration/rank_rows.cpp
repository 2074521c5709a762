#include "compress/calibration/rank_rows.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace llmpress {
namespace {

MatrixF join(const MatrixF& own, std::span<const RankRows> parts,
             const Ranks& ranks) {
  const auto bytes = ranks.gather(bytes_of(own.data()));
  std::vector<std::size_t> rows(ranks.size()), taken(ranks.size());
  std::size_t all = 0;
  for (const RankRows& part : parts) {
    rows[part.rank] += part.rows;
    all += part.rows;
  }
  std::vector<std::vector<float>> numbers;
  std::size_t cols = 0;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    numbers.push_back(values_of<float>(bytes[r]));
    if (rows[r] != 0) cols = numbers[r].size() / rows[r];
  }
  if (cols == 0) return {};
  MatrixF joined(all, cols);
  auto to = joined.data().begin();
  for (const RankRows& part : parts) {
    const auto from = std::span(numbers[part.rank])
                          .subspan(taken[part.rank] * cols, part.rows * cols);
    to = std::ranges::copy(from, to).out;
    taken[part.rank] += part.rows;
  }
  return joined;
}

}  // namespace

BlockState join_rows(BlockState own, std::span<const RankRows> parts,
                     const Ranks& ranks) {
  if (!ranks.is_spread()) return own;
  BlockState joined;
  joined.hidden = join(own.hidden, parts, ranks);
  std::size_t channels = own.carried.size();
  for (const std::string& bytes :
       ranks.gather(bytes_of(std::span(&channels, 1)))) {
    channels = std::max(channels, values_of<std::size_t>(bytes).front());
  }
  own.carried.resize(channels);
  for (const Activations& carried : own.carried) {
    joined.carried.push_back({.rows = join(carried.rows, parts, ranks)});
  }
  return joined;
}

}  // namespace llmpress
