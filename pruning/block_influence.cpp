#include "pruning/block_influence.h"

#include <cassert>
#include <cmath>
#include <span>
#include <vector>

namespace llmpress {
namespace {

double cosine(std::span<const float> x, std::span<const float> y) {
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
    xy += a * b;
    xx += a * a;
    yy += b * b;
  }
  if (xx == 0 && yy == 0) return 1;
  return xx == 0 || yy == 0 ? 0 : xy / (std::sqrt(xx) * std::sqrt(yy));
}

}  // namespace

void BlockInfluence::add(ConstMatrixView before, ConstMatrixView after,
                         ThreadPool& pool) {
  assert(before.rows() == after.rows() && before.cols() == after.cols());
  std::vector<double> cosines(before.rows());
  pool.for_ranges(cosines.size(), 16, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      cosines[t] = cosine(before.row(t), after.row(t));
    }
  });
  for (const double c : cosines) cosines_ += c;
  tokens_ += cosines.size();
}

double BlockInfluence::value() const {
  return tokens_ == 0 ? 0 : 1 - cosines_ / static_cast<double>(tokens_);
}

}  // namespace llmpress
