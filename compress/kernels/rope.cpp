#include "compress/kernels/rope.h"

#include <cassert>
#include <cmath>

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 8;

enum class Direction { kForward, kBack };

template <Direction direction>
void turn(float& a, float& b, float cos, float sin) {
  if constexpr (direction == Direction::kBack) sin = -sin;
  const float x = a, y = b;
  a = x * cos - y * sin;
  b = y * cos + x * sin;
}

template <Direction direction>
void turn_halves(std::span<float> head, std::span<const float> cos,
                 std::span<const float> sin) {
  const std::size_t half = cos.size();
  float* const a = head.data();
  float* const b = head.data() + half;
  for (std::size_t j = 0; j < half; ++j) {
    turn<direction>(a[j], b[j], cos[j], sin[j]);
  }
}

template <Direction direction>
void turn_pairs(std::span<float> head, std::span<const float> cos,
                std::span<const float> sin) {
  for (std::size_t j = 0; j < cos.size(); ++j) {
    turn<direction>(head[2 * j], head[2 * j + 1], cos[j], sin[j]);
  }
}

template <Direction direction>
void turn_heads(MatrixView<float> X, std::size_t head_dim,
                std::span<const std::uint32_t> positions,
                const RopeTables& tables, RopeStyle style, ThreadPool& pool) {
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
                            turn_halves<direction>(head, cos, sin);
                            break;
                          case RopeStyle::kPairs:
                            turn_pairs<direction>(head, cos, sin);
                            break;
                        }
                      }
                    }
                  });
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
  turn_heads<Direction::kForward>(X, head_dim, positions, tables, style, pool);
}

void apply_transposed_rope_in_place(MatrixView<float> X, std::size_t head_dim,
                                    std::span<const std::uint32_t> positions,
                                    const RopeTables& tables, RopeStyle style,
                                    ThreadPool& pool) {
  turn_heads<Direction::kBack>(X, head_dim, positions, tables, style, pool);
}

}  // namespace llmpress
