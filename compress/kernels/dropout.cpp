#include "compress/kernels/dropout.h"

#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;
constexpr std::size_t kRowsPerTask = 16;

}  // namespace

Dropout Dropout::of(std::uint64_t part) const {
  Rng mixed(seed);
  return {rate, mixed.next() ^ Rng(part).next()};
}

float Dropout::factor(std::uint64_t index) const {
  // The index-th number of the generator, without those before it.
  Rng at(seed + index * kGolden);
  return at.uniform() < static_cast<double>(rate) ? 0.0f : 1 / (1 - rate);
}

void drop_in_place(const Dropout& dropout, MatrixView<float> X,
                   ThreadPool& pool) {
  pool.for_ranges(X.rows(), kRowsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t r = begin; r < end; ++r) {
                      const auto row = X.row(r);
                      for (std::size_t c = 0; c < row.size(); ++c) {
                        row[c] *= dropout.factor(r * X.cols() + c);
                      }
                    }
                  });
}

}  // namespace llmpress
