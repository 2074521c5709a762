#include "compress/kernels/rope.h"

#include <cassert>
#include <cmath>

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 8;

void turn_halves(std::span<float> head, std::span<const float> cos,
                 std::span<const float> sin) {
  const std::size_t half = cos.size();
  float* const a = head.data();
  float* const b = head.data() + half;
  for (std::size_t j = 0; j < half; ++j) {
    const float x = a[j], y = b[j];
    a[j] = x * cos[j] - y * sin[j];
    b[j] = y * cos[j] + x * sin[j];
  }
}

void turn_pairs(std::span<float> head, std::span<const float> cos,
                std::span<const float> sin) {
  for (std::size_t j = 0; j < cos.size(); ++j) {
    const float x = head[2 * j], y = head[2 * j + 1];
    head[2 * j] = x * cos[j] - y * sin[j];
    head[2 * j + 1] = y * cos[j] + x * sin[j];
  }
}

}  // namespace

RopeTables make_rope_tables(std::size_t positions,
                            std::span<const double> inverse_frequency,
                            double scaling) {
  RopeTables tables{.cos = MatrixF(positions, inverse_frequency.size()),
                    .sin = MatrixF(positions, inverse_frequency.size())};
  for (std::size_t p = 0; p < positions; ++p) {
    for (std::size_t j = 0; j < inverse_frequency.size(); ++j) {
      const double angle = static_cast<double>(p) * inverse_frequency[j];
      tables.cos(p, j) = static_cast<float>(std::cos(angle) * scaling);
      tables.sin(p, j) = static_cast<float>(std::sin(angle) * scaling);
    }
  }
  return tables;
}

void apply_rope_in_place(MatrixView<float> X, std::size_t head_dim,
                         std::span<const std::uint32_t> positions,
                         const RopeTables& tables, RopeStyle style,
                         ThreadPool& pool) {
  assert(positions.size() == X.rows() && X.cols() % head_dim == 0 &&
         2 * tables.cos.cols() <= head_dim);
  pool.for_ranges(X.rows(), kRowsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t t = begin; t < end; ++t) {
                      const auto cos = tables.cos.row(positions[t]);
                      const auto sin = tables.sin.row(positions[t]);
                      for (std::size_t h = 0; h < X.cols(); h += head_dim) {
                        const auto head = X.row(t).subspan(h, head_dim);
                        switch (style) {
                          case RopeStyle::kHalves:
                            turn_halves(head, cos, sin);
                            break;
                          case RopeStyle::kPairs:
                            turn_pairs(head, cos, sin);
                            break;
                        }
                      }
                    }
                  });
}

}  // namespace llmpress
